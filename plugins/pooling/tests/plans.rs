//! Plans whose right answer is known without a search.
// Tests fail by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::time::{Duration, Instant};

use support::{Rng, check_plan, host, machine, place, random_problem, uniform};
use tightwad_plugin_sdk::{Assignment, Machine, Plan, Refusal, Shape, Shortage};

const GIGA: u64 = 1_000_000_000;
const MEGA: u64 = 1_000_000;

/// A machine in the local network: a gigabit link, a round trip of 200 microseconds.
fn near(name: &str, memory: u64, memory_bandwidth: u64) -> Machine {
    machine(name, memory, memory_bandwidth, 117 * MEGA, 200_000)
}

fn assignments(plan: &Plan) -> Vec<(u32, u32)> {
    plan.assignments.iter().map(|assignment| (assignment.machine, assignment.layers)).collect()
}

fn refusal_text(shape: &Shape, machines: &[Machine]) -> String {
    match place(shape, machines) {
        Err(Refusal::Other(text)) => text,
        answer => panic!("{answer:?}"),
    }
}

#[test]
fn model_stays_on_a_host_where_it_fits() {
    let shape = uniform(32, 100 * MEGA, 10 * MEGA, 200 * MEGA, 50 * MEGA);
    let machines = [near("gpu", 16 * GIGA, 6 * GIGA), host(8 * GIGA, 5 * GIGA)];
    let plan = place(&shape, &machines[1..]).unwrap();
    assert_eq!((assignments(&plan), plan.output_on_host), (vec![(0, 32)], true));
    // 3.4 GB at 5 GB/s: 680 ms. All of it on the faster worker: 567 ms and 5.5 ms of network.
    assert_eq!(plan.time_per_token, 680 * MEGA);
    let plan = place(&shape, &machines).unwrap();
    assert_eq!((assignments(&plan), plan.output_on_host), (vec![(0, 32)], false));
    let slower = [near("old", 16 * GIGA, 4 * GIGA), host(8 * GIGA, 5 * GIGA)];
    assert_eq!(assignments(&place(&shape, &slower).unwrap()), [(1, 32)]);
}

#[test]
fn slow_worker_is_left_out_until_its_memory_is_needed() {
    let mut shape = uniform(40, 100 * MEGA, 0, 0, 0);
    let machines = [
        near("fast", 2 * GIGA, 20 * GIGA),
        near("slow", 4 * GIGA, GIGA / 10),
        near("middling", 2 * GIGA, 10 * GIGA),
    ];
    let plan = place(&shape, &machines).unwrap();
    assert!(plan.assignments.iter().all(|assignment| assignment.machine != 1), "{plan:?}");
    shape.layers.extend(shape.layers[..2].to_vec());
    let plan = place(&shape, &machines).unwrap();
    let slow: Vec<&Assignment> =
        plan.assignments.iter().filter(|assignment| assignment.machine == 1).collect();
    assert!(slow.len() == 1 && slow[0].layers == 2, "{plan:?}");
}

#[test]
fn distant_worker_is_left_out_however_fast_it_is() {
    let shape = uniform(40, 100 * MEGA, 0, 0, 0);
    let far = |round_trip| {
        let far = machine("far", 8 * GIGA, 100 * GIGA, 117 * MEGA, round_trip);
        let machines = [host(8 * GIGA, 10 * GIGA), far];
        assignments(&place(&shape, &machines).unwrap())
    };
    // The distant worker saves 360 ms of reading.
    assert_eq!(far(200 * MEGA), [(1, 40)]);
    assert_eq!(far(400 * MEGA), [(0, 40)]);
    // A slow link has the same effect: two rows of activations take 640 ms.
    let thin = machine("thin", 8 * GIGA, 100 * GIGA, MEGA / 20, 0);
    assert_eq!(assignments(&place(&shape, &[host(8 * GIGA, 10 * GIGA), thin]).unwrap()), [(0, 40)]);
}

#[test]
fn fewer_machines_win_among_equal_plans() {
    let mut shape = uniform(10, 100 * MEGA, 0, 0, 0);
    (shape.activations, shape.logits) = (0, 0);
    let machines: Vec<Machine> = (0..4).map(|_| machine("same", 2 * GIGA, GIGA, GIGA, 0)).collect();
    assert_eq!(place(&shape, &machines).unwrap().assignments.len(), 1);
}

#[test]
fn host_without_layers_may_hold_the_output_head() {
    let shape = uniform(20, 100 * MEGA, 10 * MEGA, 500 * MEGA, 0);
    let without_layers = Machine { max_layers: 0, ..host(8 * GIGA, 20 * GIGA) };
    let machines = [without_layers, near("worker", 8 * GIGA, 5 * GIGA)];
    let plan = place(&shape, &machines).unwrap();
    assert_eq!((assignments(&plan), plan.output_on_host), (vec![(1, 20)], true));
    let tiny = [Machine { memory: GIGA / 10, ..machines[0].clone() }, machines[1].clone()];
    let plan = place(&shape, &tiny).unwrap();
    assert_eq!((assignments(&plan), plan.output_on_host), (vec![(1, 20)], false));
    let text = refusal_text(&shape, &machines[..1]);
    assert!(text.contains("may hold 0 of the 20 layers"), "{text}");
}

#[test]
fn refusal_of_a_model_that_is_too_big_has_the_missing_memory() {
    let shape = uniform(10, 90 * MEGA, 10 * MEGA, 150 * MEGA, 20 * MEGA);
    let machines = [host(420 * MEGA, GIGA), near("worker", 320 * MEGA, GIGA)];
    // Four layers on the host, three on the worker. The worker lacks three layers and the output head.
    let missing = 450 * MEGA;
    let answer = place(&shape, &machines);
    assert_eq!(answer, Err(Refusal::TooBig(Shortage { missing, fits: 7 })));
    let more = |by| [machines[0].clone(), Machine { memory: 320 * MEGA + by, ..machines[1].clone() }];
    assert!(place(&shape, &more(missing)).is_ok());
    assert!(place(&shape, &more(missing - 1)).is_err());
    let alone = place(&shape, &machines[..1]);
    assert_eq!(alone, Err(Refusal::TooBig(Shortage { missing: 750 * MEGA, fits: 4 })));
    // All layers fit, the output head does not.
    let head = place(&shape, &[near("worker", 1020 * MEGA, GIGA)]);
    assert_eq!(head, Err(Refusal::TooBig(Shortage { missing: 150 * MEGA, fits: 10 })));
}

#[test]
fn output_buffer_takes_memory_and_no_time() {
    let mut shape = uniform(10, 90 * MEGA, 10 * MEGA, 400 * MEGA, 20 * MEGA);
    let machines = [host(1250 * MEGA, 2 * GIGA), near("worker", 800 * MEGA, GIGA)];
    let plan = place(&shape, &machines).unwrap();
    assert_eq!((assignments(&plan), plan.output_on_host), (vec![(0, 8), (1, 2)], true));
    shape.output_buffer = 100 * MEGA;
    let fewer = place(&shape, &machines).unwrap();
    assert_eq!((assignments(&fewer), fewer.output_on_host), (vec![(0, 7), (1, 3)], true));
    // The additional time of a layer on the worker.
    assert_eq!(fewer.time_per_token, plan.time_per_token + 45 * MEGA);
    let answer = place(&shape, &machines[..1]);
    assert_eq!(answer, Err(Refusal::TooBig(Shortage { missing: 270 * MEGA, fits: 10 })));
    shape.output_buffer = u64::MAX;
    assert!(refusal_text(&shape, &machines).contains("2^64"));
}

#[test]
fn invalid_arguments_are_refused_with_a_text() {
    let shape = uniform(10, MEGA, 0, 0, 0);
    assert!(refusal_text(&shape, &[]).contains("no machine"));
    assert!(
        refusal_text(&Shape { layers: Vec::new(), ..shape.clone() }, &[host(1, 1)]).contains("no layers")
    );
    assert!(refusal_text(&shape, &[host(1, 1), host(1, 1)]).contains("only one"));
    let huge = uniform(2, u64::MAX / 2, 1, 1, 1);
    assert!(refusal_text(&huge, &[host(u64::MAX, 1)]).contains("2^64"));
    let limited = Machine { max_layers: 9, ..host(GIGA, 1) };
    assert!(refusal_text(&shape, &[limited]).contains("9 of the 10 layers"));
}

#[test]
fn sixteen_workers_are_used_and_seventeen_refused() {
    let shape = uniform(17, 100 * MEGA, 0, 0, 0);
    let mut machines = vec![host(100 * MEGA, GIGA)];
    machines.extend((0..16).map(|at| near(&format!("w{at}"), 100 * MEGA, (at + 1) * GIGA)));
    let plan = place(&shape, &machines).unwrap();
    check_plan(&shape, &machines, &plan);
    assert_eq!(plan.assignments.len(), 17);
    assert_eq!(plan.assignments[0].machine, 0);
    machines.push(near("one too many", GIGA, GIGA));
    let text = refusal_text(&shape, &machines);
    assert!(text.contains("at most 16 workers, not 17"), "{text}");
}

#[test]
fn sixteen_machines_with_one_feasible_order_are_placed() {
    let mut rng = Rng(9);
    for _ in 0..20 {
        let (mut shape, _) = random_problem(&mut rng, 1, 48);
        (shape.output, shape.output_buffer) = (0, 0);
        // For each run of three layers there is one machine of exactly its size.
        let mut machines: Vec<Machine> = (shape.layers.chunks(3))
            .map(|run| run.iter().map(|layer| layer.weights + layer.cache).sum::<u64>())
            .map(|bytes| near("worker", bytes + shape.compute_buffer, GIGA))
            .collect();
        for at in (1..machines.len()).rev() {
            machines.swap(at, rng.below(at as u64 + 1) as usize);
        }
        let plan = place(&shape, &machines).unwrap();
        check_plan(&shape, &machines, &plan);
    }
}

#[test]
fn many_layers_on_many_machines_take_little_time() {
    let mut rng = Rng(6);
    for layers in [80, 200] {
        let (shape, mut machines) = random_problem(&mut rng, 16, layers);
        for machine in &mut machines {
            machine.max_layers = u32::MAX;
            machine.memory = rng.range(20 * layers, 60 * layers) * MEGA / 3;
        }
        let start = Instant::now();
        let plan = place(&shape, &machines).unwrap();
        let took = start.elapsed();
        check_plan(&shape, &machines, &plan);
        println!("{layers} layers: {took:?} here");
        // Without optimization, on a busy machine. A component takes a tenth of this.
        assert!(took < Duration::from_millis(1500), "{layers} layers took {took:?}");
    }
}
