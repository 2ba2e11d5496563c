//! Plans compared with all possible plans of small problems.
// Tests fail by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use support::{Rng, brute_force, check_plan, place, random_problem, reference_cost};
use tightwad_plugin_sdk::{Assignment, Machine, Refusal, Shape};
use tightwad_pooling::layer_dp::Placement;
use tightwad_pooling::problem::Problem;
use tightwad_pooling::{capacity, exact, local_search};

const CASES: u64 = 3000;

fn small(rng: &mut Rng) -> (Shape, Vec<Machine>) {
    let workers = rng.range(1, 3);
    let layers = rng.range(1, 8);
    random_problem(rng, workers, layers)
}

#[test]
fn plan_is_the_best_one_and_exists_if_anything_fits() {
    let mut rng = Rng(1);
    let (mut placed, mut refused) = (0, 0);
    for case in 0..CASES {
        let (shape, machines) = small(&mut rng);
        match (place(&shape, &machines), brute_force(&shape, &machines)) {
            (Ok(plan), Some(least)) => {
                let cost = check_plan(&shape, &machines, &plan);
                // Within the penalty of each machine.
                assert!(cost <= least + 5.0 + least * 1e-9, "{case}: {cost} for {least}");
                placed += 1;
            }
            (Err(_), None) => refused += 1,
            (plan, least) => panic!("{case}: {plan:?}, {least:?}\n{shape:?}\n{machines:?}"),
        }
    }
    assert!(placed > CASES / 4 && refused > CASES / 8, "{placed} placed, {refused} refused");
}

#[test]
fn local_search_comes_close_to_the_best_of_few_machines() {
    let mut rng = Rng(2);
    let mut worst: f64 = 1.0;
    for case in 0..CASES {
        let (shape, machines) = small(&mut rng);
        let problem = Problem::new(&shape, &machines);
        match (local_search::best(&problem, 20_000), brute_force(&shape, &machines)) {
            (Some(found), Some(least)) => {
                let cost = cost_of(&problem, &shape, &machines, &found).unwrap();
                worst = worst.max(cost / least);
            }
            (None, None) => {}
            (found, least) => panic!("{case}: {found:?}, {least:?}\n{shape:?}\n{machines:?}"),
        }
    }
    assert!(worst < 1.05, "{worst}");
}

#[test]
fn local_search_comes_close_to_the_exact_search_of_many_machines() {
    let mut rng = Rng(3);
    let (mut worst, mut placed): (f64, u32) = (1.0, 0);
    for case in 0..60 {
        let workers = rng.range(6, 9);
        let (mut shape, machines) = random_problem(&mut rng, workers, 30);
        // Nearly as much as the machines hold.
        shape.layers.truncate(rng.range(10, 30) as usize);
        let problem = Problem::new(&shape, &machines);
        match (local_search::best(&problem, 1_000_000), exact::best(&problem)) {
            (Some(found), Some(least)) => {
                let cost = cost_of(&problem, &shape, &machines, &found).unwrap();
                let least = cost_of(&problem, &shape, &machines, &least).unwrap();
                worst = worst.max(cost / least);
                placed += 1;
            }
            (None, None) => {}
            (found, least) => panic!("{case}: {found:?}, {least:?}\n{shape:?}\n{machines:?}"),
        }
    }
    assert!(worst < 1.05 && placed > 20, "{worst}, {placed} placed");
}

#[test]
fn shortage_is_correct() {
    let mut rng = Rng(4);
    let mut short = 0;
    for case in 0..CASES {
        let (shape, machines) = small(&mut rng);
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
fn feasible_order_is_found_without_a_search() {
    let mut rng = Rng(5);
    for case in 0..CASES {
        let (shape, machines) = small(&mut rng);
        let problem = Problem::new(&shape, &machines);
        let fits = capacity::feasible_order(&problem).is_some();
        assert_eq!(fits, exact::best(&problem).is_some(), "{case}: {shape:?}\n{machines:?}");
    }
}

/// The cost of a placement, by the reference.
fn cost_of(problem: &Problem, shape: &Shape, machines: &[Machine], found: &Placement) -> Option<f64> {
    let host = problem.host.filter(|_| found.host_layers > 0).map(|host| (host, found.host_layers));
    let runs = found.runs.iter().map(|(worker, layers)| (problem.workers[*worker].machine, *layers));
    let assignments: Vec<Assignment> = host
        .into_iter()
        .chain(runs)
        .map(|(machine, layers)| Assignment { machine: machine as u32, layers: layers as u32 })
        .collect();
    reference_cost(shape, machines, &assignments, found.output_on_host)
}
