//! Plans whose right answer is known without a search.
// Tests fail by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::time::{Duration, Instant};

use support::{Chance, checked, host, machine, place, question, uniform};
use tightwad_plugin_sdk::{Assignment, Machine, Plan, Refusal, Shape, Shortage};

const GIGA: u64 = 1_000_000_000;
const MEGA: u64 = 1_000_000;

/// A machine of the local network: a gigabit link, 200 microseconds away.
fn near(name: &str, memory: u64, speed: u64) -> Machine {
    machine(name, memory, speed, 117 * MEGA, 200_000)
}

fn shares(plan: &Plan) -> Vec<(u32, u32)> {
    plan.assignments.iter().map(|share| (share.machine, share.layers)).collect()
}

fn other(shape: &Shape, machines: &[Machine]) -> String {
    match place(shape, machines) {
        Err(Refusal::Other(text)) => text,
        answer => panic!("{answer:?}"),
    }
}

#[test]
fn a_model_that_fits_here_stays_here() {
    let shape = uniform(32, 100 * MEGA, 10 * MEGA, 200 * MEGA, 50 * MEGA);
    let machines = [near("gpu", 16 * GIGA, 6 * GIGA), host(8 * GIGA, 5 * GIGA)];
    let plan = place(&shape, &machines[1..]).unwrap();
    assert_eq!((shares(&plan), plan.output_on_host), (vec![(0, 32)], true));
    // 3.4 GB at 5 GB/s: 680 ms. All of it on the faster worker: 567 ms and 5.5 ms of network.
    assert_eq!(plan.time_per_token, 680 * MEGA);
    let plan = place(&shape, &machines).unwrap();
    assert_eq!((shares(&plan), plan.output_on_host), (vec![(0, 32)], false));
    let slower = [near("old", 16 * GIGA, 4 * GIGA), host(8 * GIGA, 5 * GIGA)];
    assert_eq!(shares(&place(&shape, &slower).unwrap()), [(1, 32)]);
}

#[test]
fn a_slow_worker_is_left_out_until_its_memory_is_needed() {
    let mut shape = uniform(40, 100 * MEGA, 0, 0, 0);
    let machines = [
        near("fast", 2 * GIGA, 20 * GIGA),
        near("slow", 4 * GIGA, GIGA / 10),
        near("middling", 2 * GIGA, 10 * GIGA),
    ];
    let plan = place(&shape, &machines).unwrap();
    assert!(plan.assignments.iter().all(|share| share.machine != 1), "{plan:?}");
    shape.layers.extend(shape.layers[..2].to_vec());
    let plan = place(&shape, &machines).unwrap();
    let slow: Vec<&Assignment> = plan.assignments.iter().filter(|share| share.machine == 1).collect();
    assert!(slow.len() == 1 && slow[0].layers == 2, "{plan:?}");
}

#[test]
fn a_far_worker_is_left_out_however_fast_it_is() {
    let shape = uniform(40, 100 * MEGA, 0, 0, 0);
    let far = |round_trip| {
        let far = machine("far", 8 * GIGA, 100 * GIGA, 117 * MEGA, round_trip);
        let machines = [host(8 * GIGA, 10 * GIGA), far];
        shares(&place(&shape, &machines).unwrap())
    };
    // It saves 360 ms of reading.
    assert_eq!(far(200 * MEGA), [(1, 40)]);
    assert_eq!(far(400 * MEGA), [(0, 40)]);
    // So is a thin link: two rows of activations take 640 ms.
    let thin = machine("thin", 8 * GIGA, 100 * GIGA, MEGA / 20, 0);
    assert_eq!(shares(&place(&shape, &[host(8 * GIGA, 10 * GIGA), thin]).unwrap()), [(0, 40)]);
}

#[test]
fn of_equal_plans_the_one_with_fewer_machines_wins() {
    let mut shape = uniform(10, 100 * MEGA, 0, 0, 0);
    (shape.activations, shape.logits) = (0, 0);
    let machines: Vec<Machine> = (0..4).map(|_| machine("same", 2 * GIGA, GIGA, GIGA, 0)).collect();
    assert_eq!(place(&shape, &machines).unwrap().assignments.len(), 1);
}

#[test]
fn a_host_without_layers_may_hold_the_head() {
    let shape = uniform(20, 100 * MEGA, 10 * MEGA, 500 * MEGA, 0);
    let here = Machine { max_layers: 0, ..host(8 * GIGA, 20 * GIGA) };
    let machines = [here, near("worker", 8 * GIGA, 5 * GIGA)];
    let plan = place(&shape, &machines).unwrap();
    assert_eq!((shares(&plan), plan.output_on_host), (vec![(1, 20)], true));
    let tiny = [Machine { memory: GIGA / 10, ..machines[0].clone() }, machines[1].clone()];
    let plan = place(&shape, &tiny).unwrap();
    assert_eq!((shares(&plan), plan.output_on_host), (vec![(1, 20)], false));
    let text = other(&shape, &machines[..1]);
    assert!(text.contains("may hold 0 of the 20 layers"), "{text}");
}

#[test]
fn what_is_too_big_says_what_is_missing() {
    let shape = uniform(10, 90 * MEGA, 10 * MEGA, 150 * MEGA, 20 * MEGA);
    let machines = [host(420 * MEGA, GIGA), near("worker", 320 * MEGA, GIGA)];
    // Four here, three there; the worker lacks three layers and the head.
    let missing = 450 * MEGA;
    let answer = place(&shape, &machines);
    assert_eq!(answer, Err(Refusal::TooBig(Shortage { missing, fits: 7 })));
    let more = |by| [machines[0].clone(), Machine { memory: 320 * MEGA + by, ..machines[1].clone() }];
    assert!(place(&shape, &more(missing)).is_ok());
    assert!(place(&shape, &more(missing - 1)).is_err());
    let alone = place(&shape, &machines[..1]);
    assert_eq!(alone, Err(Refusal::TooBig(Shortage { missing: 750 * MEGA, fits: 4 })));
    // All layers fit, the head does not.
    let head = place(&shape, &[near("worker", 1020 * MEGA, GIGA)]);
    assert_eq!(head, Err(Refusal::TooBig(Shortage { missing: 150 * MEGA, fits: 10 })));
}

#[test]
fn the_logits_of_a_pass_take_memory_and_no_time() {
    let mut shape = uniform(10, 90 * MEGA, 10 * MEGA, 400 * MEGA, 20 * MEGA);
    let machines = [host(1250 * MEGA, 2 * GIGA), near("worker", 800 * MEGA, GIGA)];
    let plan = place(&shape, &machines).unwrap();
    assert_eq!((shares(&plan), plan.output_on_host), (vec![(0, 8), (1, 2)], true));
    shape.output_buffer = 100 * MEGA;
    let fewer = place(&shape, &machines).unwrap();
    assert_eq!((shares(&fewer), fewer.output_on_host), (vec![(0, 7), (1, 3)], true));
    // What the worker takes longer for a layer.
    assert_eq!(fewer.time_per_token, plan.time_per_token + 45 * MEGA);
    let answer = place(&shape, &machines[..1]);
    assert_eq!(answer, Err(Refusal::TooBig(Shortage { missing: 270 * MEGA, fits: 10 })));
    shape.output_buffer = u64::MAX;
    assert!(other(&shape, &machines).contains("2^64"));
}

#[test]
fn questions_without_sense_are_refused_in_words() {
    let shape = uniform(10, MEGA, 0, 0, 0);
    assert!(other(&shape, &[]).contains("no machine"));
    assert!(other(&Shape { layers: Vec::new(), ..shape.clone() }, &[host(1, 1)]).contains("no layers"));
    assert!(other(&shape, &[host(1, 1), host(1, 1)]).contains("only one"));
    let huge = uniform(2, u64::MAX / 2, 1, 1, 1);
    assert!(other(&huge, &[host(u64::MAX, 1)]).contains("2^64"));
    let limited = Machine { max_layers: 9, ..host(GIGA, 1) };
    assert!(other(&shape, &[limited]).contains("9 of the 10 layers"));
}

#[test]
fn sixteen_workers_are_used_and_seventeen_refused() {
    let shape = uniform(17, 100 * MEGA, 0, 0, 0);
    let mut machines = vec![host(100 * MEGA, GIGA)];
    machines.extend((0..16).map(|at| near(&format!("w{at}"), 100 * MEGA, (at + 1) * GIGA)));
    let plan = place(&shape, &machines).unwrap();
    checked(&shape, &machines, &plan);
    assert_eq!(plan.assignments.len(), 17);
    assert_eq!(plan.assignments[0].machine, 0);
    machines.push(near("one too many", GIGA, GIGA));
    let text = other(&shape, &machines);
    assert!(text.contains("at most 16 workers, not 17"), "{text}");
}

#[test]
fn sixteen_machines_that_fit_one_way_only_are_placed() {
    let mut chance = Chance(9);
    for _ in 0..20 {
        let (mut shape, _) = question(&mut chance, 1, 48);
        (shape.output, shape.output_buffer) = (0, 0);
        // Each run of three layers has its machine, to the byte.
        let mut machines: Vec<Machine> = (shape.layers.chunks(3))
            .map(|run| run.iter().map(|layer| layer.weights + layer.cache).sum::<u64>())
            .map(|bytes| near("worker", bytes + shape.compute_buffer, GIGA))
            .collect();
        for at in (1..machines.len()).rev() {
            machines.swap(at, chance.below(at as u64 + 1) as usize);
        }
        let plan = place(&shape, &machines).unwrap();
        checked(&shape, &machines, &plan);
    }
}

#[test]
fn many_layers_on_many_machines_take_little_time() {
    let mut chance = Chance(6);
    for layers in [80, 200] {
        let (shape, mut machines) = question(&mut chance, 16, layers);
        for machine in &mut machines {
            machine.max_layers = u32::MAX;
            machine.memory = chance.range(20 * layers, 60 * layers) * MEGA / 3;
        }
        let start = Instant::now();
        let plan = place(&shape, &machines).unwrap();
        let took = start.elapsed();
        checked(&shape, &machines, &plan);
        println!("{layers} layers: {took:?} here");
        // Without optimization, on a busy machine; in a component it is a tenth of this.
        assert!(took < Duration::from_millis(1500), "{layers} layers took {took:?}");
    }
}
