//! Plans against all plans, on small questions.
// Tests fail by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use support::{Chance, brute_force, checked, place, price, question};
use tightwad_plugin_sdk::{Assignment, Machine, Refusal, Shape};
use tightwad_pooling::chain::Found;
use tightwad_pooling::problem::Problem;
use tightwad_pooling::{climb, exact, room};

const CASES: u64 = 3000;

fn small(chance: &mut Chance) -> (Shape, Vec<Machine>) {
    let workers = chance.range(1, 3);
    let layers = chance.range(1, 8);
    question(chance, workers, layers)
}

#[test]
fn a_plan_is_the_best_there_is_and_there_is_one_where_anything_fits() {
    let mut chance = Chance(1);
    let (mut placed, mut refused) = (0, 0);
    for case in 0..CASES {
        let (shape, machines) = small(&mut chance);
        match (place(&shape, &machines), brute_force(&shape, &machines)) {
            (Ok(plan), Some(least)) => {
                let price = checked(&shape, &machines, &plan);
                // Within a trifle for each machine: equal plans go to fewer of them.
                assert!(price <= least + 5.0 + least * 1e-9, "{case}: {price} for {least}");
                placed += 1;
            }
            (Err(_), None) => refused += 1,
            (plan, least) => panic!("{case}: {plan:?}, {least:?}\n{shape:?}\n{machines:?}"),
        }
    }
    assert!(placed > CASES / 4 && refused > CASES / 8, "{placed} placed, {refused} refused");
}

#[test]
fn the_way_for_many_machines_comes_close_on_few() {
    let mut chance = Chance(2);
    let mut worst: f64 = 1.0;
    for case in 0..CASES {
        let (shape, machines) = small(&mut chance);
        let problem = Problem::new(&shape, &machines);
        match (climb::best(&problem, 20_000), brute_force(&shape, &machines)) {
            (Some(found), Some(least)) => {
                let price = of_found(&problem, &shape, &machines, &found).unwrap();
                worst = worst.max(price / least);
            }
            (None, None) => {}
            (found, least) => panic!("{case}: {found:?}, {least:?}\n{shape:?}\n{machines:?}"),
        }
    }
    assert!(worst < 1.05, "{worst}");
}

#[test]
fn the_way_for_many_machines_comes_close_on_many() {
    let mut chance = Chance(3);
    let (mut worst, mut placed): (f64, u32) = (1.0, 0);
    for case in 0..60 {
        let workers = chance.range(6, 9);
        let (mut shape, machines) = question(&mut chance, workers, 30);
        // As much as the machines hold, nearly.
        shape.layers.truncate(chance.range(10, 30) as usize);
        let problem = Problem::new(&shape, &machines);
        match (climb::best(&problem, 1_000_000), exact::best(&problem)) {
            (Some(found), Some(least)) => {
                let price = of_found(&problem, &shape, &machines, &found).unwrap();
                let least = of_found(&problem, &shape, &machines, &least).unwrap();
                worst = worst.max(price / least);
                placed += 1;
            }
            (None, None) => {}
            (found, least) => panic!("{case}: {found:?}, {least:?}\n{shape:?}\n{machines:?}"),
        }
    }
    assert!(worst < 1.05 && placed > 20, "{worst}, {placed} placed");
}

#[test]
fn a_shortage_is_true() {
    let mut chance = Chance(4);
    let mut short = 0;
    for case in 0..CASES {
        let (shape, machines) = small(&mut chance);
        let Err(Refusal::TooBig(shortage)) = place(&shape, &machines) else { continue };
        short += 1;
        let mut fewer = Shape { output: 0, output_buffer: 0, ..shape.clone() };
        assert!(shortage.fits as usize <= shape.layers.len());
        fewer.layers.truncate(shortage.fits as usize);
        if shortage.fits > 0 {
            assert!(brute_force(&fewer, &machines).is_some(), "{case}: {shortage:?} are too many");
        }
        if let Some(next) = shape.layers.get(shortage.fits as usize) {
            fewer.layers.push(*next);
            assert!(brute_force(&fewer, &machines).is_none(), "{case}: {shortage:?} are too few");
        }
        let limited = machines.iter().any(|machine| machine.max_layers < u32::MAX);
        let more = |at: usize, by: u64| {
            let mut machines = machines.clone();
            machines[at].memory += by;
            brute_force(&shape, &machines).is_some()
        };
        let enough = (0..machines.len()).any(|at| more(at, shortage.missing));
        assert!(enough || limited, "{case}: {shortage:?}\n{shape:?}\n{machines:?}");
    }
    assert!(short > CASES / 8, "{short}");
}

#[test]
fn an_order_in_which_all_fits_is_found_without_a_search() {
    let mut chance = Chance(5);
    for case in 0..CASES {
        let (shape, machines) = small(&mut chance);
        let problem = Problem::new(&shape, &machines);
        let fits = room::order(&problem).is_some();
        assert_eq!(fits, exact::best(&problem).is_some(), "{case}: {shape:?}\n{machines:?}");
    }
}

/// What a placement costs by the book.
fn of_found(problem: &Problem, shape: &Shape, machines: &[Machine], found: &Found) -> Option<f64> {
    let here = problem.here.filter(|_| found.at_here > 0).map(|here| (here, found.at_here));
    let runs = found.runs.iter().map(|(worker, layers)| (problem.workers[*worker].machine, *layers));
    let shares: Vec<Assignment> = here
        .into_iter()
        .chain(runs)
        .map(|(machine, layers)| Assignment { machine: machine as u32, layers: layers as u32 })
        .collect();
    price(shape, machines, &shares, found.head_here)
}
