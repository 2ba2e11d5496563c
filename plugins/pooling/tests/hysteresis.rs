//! When the previous plan is kept.
// Tests fail by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use support::{Rng, check_plan, host, machine, place, random_problem, uniform};
use tightwad_plugin_sdk::{Assignment, Machine, Plan, Shape};
use tightwad_pooling::hysteresis::MAX_SLOWDOWN;
use tightwad_pooling::search;

const MEGA: u64 = 1_000_000;

/// A token takes only the time of reading weights.
fn shape() -> Shape {
    Shape { logits: 0, activations: 0, ..uniform(10, 90 * MEGA, 10 * MEGA, 100 * MEGA, 20 * MEGA) }
}

/// The host and two workers, with bandwidths in megabytes per second. Each holds the complete model.
fn machines(memory_bandwidths: [u64; 3]) -> [Machine; 3] {
    let worker = |name, memory_bandwidth| machine(name, 1200 * MEGA, memory_bandwidth * MEGA, MEGA, 0);
    [
        host(1200 * MEGA, memory_bandwidths[0] * MEGA),
        worker("a", memory_bandwidths[1]),
        worker("b", memory_bandwidths[2]),
    ]
}

fn plan(assignments: &[(u32, u32)], output_on_host: bool) -> Plan {
    let assignments =
        assignments.iter().map(|(machine, layers)| Assignment { machine: *machine, layers: *layers });
    Plan { assignments: assignments.collect(), output_on_host, time_per_token: 1 }
}

/// True if the policy returns `before`. Checks the returned plan.
fn keeps(shape: &Shape, machines: &[Machine], before: &Plan) -> bool {
    let after = search::place(shape, machines, Some(before)).unwrap();
    check_plan(shape, machines, &after);
    let kept = (&after.assignments, after.output_on_host) == (&before.assignments, before.output_on_host);
    assert!(kept || after == place(shape, machines).unwrap(), "{after:?}");
    kept
}

#[test]
fn plan_is_kept_up_to_the_slowdown_limit() {
    let shape = shape();
    let before = plan(&[(1, 10)], false);
    let machines_now = machines([500, 1000, 1140]);
    let after = search::place(&shape, &machines_now, Some(&before)).unwrap();
    // 1 GB at 1 GB/s.
    assert_eq!(after, Plan { time_per_token: 1000 * MEGA, ..before.clone() });
    assert!(!keeps(&shape, &machines([500, 1000, 1160]), &before));
    // A plan of several machines, too.
    let spread = plan(&[(0, 1), (2, 4), (1, 5)], true);
    assert!(keeps(&shape, &machines([900, 1000, 1000]), &spread));
    assert!(!keeps(&shape, &machines([400, 1000, 1000]), &spread));
    assert!(keeps(&shape, &machines([1000, 1000, 1000]), &plan(&[(2, 10)], true)));
}

#[test]
fn plan_that_no_longer_fits_is_left() {
    let shape = shape();
    let equal = machines([1000, 1000, 1000]);
    let before = plan(&[(0, 4), (1, 6)], false);
    assert!(keeps(&shape, &equal, &before));
    let with = |at: usize, memory: u64, max_layers: u32| {
        let mut machines = equal.clone();
        (machines[at].memory, machines[at].max_layers) = (memory * MEGA, max_layers);
        machines
    };
    // Four layers and the compute buffer; six layers, the output head and the compute buffer.
    assert!(keeps(&shape, &with(0, 420, 4), &before) && keeps(&shape, &with(1, 720, 6), &before));
    assert!(!keeps(&shape, &with(0, 419, 4), &before) && !keeps(&shape, &with(1, 719, 6), &before));
    assert!(!keeps(&shape, &with(0, 420, 3), &before) && !keeps(&shape, &with(1, 720, 5), &before));
    let logits = Shape { output_buffer: MEGA, ..shape.clone() };
    assert!(!keeps(&logits, &with(1, 720, 6), &before) && keeps(&logits, &with(1, 721, 6), &before));
    // The output head on a host with layers, and on a host without.
    let with_layers = plan(&[(0, 4), (1, 6)], true);
    assert!(keeps(&shape, &with(0, 520, 4), &with_layers) && !keeps(&shape, &with(0, 519, 4), &with_layers));
    let alone = plan(&[(1, 10)], true);
    assert!(keeps(&shape, &with(0, 120, 0), &alone) && !keeps(&shape, &with(0, 119, 0), &alone));
    assert!(!keeps(&shape, &equal[1..], &plan(&[(0, 10)], true)), "there is no host");
}

#[test]
fn invalid_plan_is_not_kept() {
    let (shape, machines) = (shape(), machines([1000, 1000, 1000]));
    let keeps = |assignments: &[(u32, u32)]| keeps(&shape, &machines, &plan(assignments, true));
    assert!(keeps(&[(0, 5), (2, 5)]));
    assert!(!keeps(&[]));
    assert!(!keeps(&[(0, 5), (3, 5)]), "no such machine");
    assert!(!keeps(&[(0, 5), (u32::MAX, 5)]), "no such machine");
    assert!(!keeps(&[(0, 5), (2, 4)]), "a layer too few");
    assert!(!keeps(&[(0, 5), (2, 6)]), "a layer too many");
    assert!(!keeps(&[(0, 5), (2, u32::MAX)]), "far too many");
    assert!(!keeps(&[(2, 5), (0, 5)]), "the host is not first");
    assert!(!keeps(&[(0, 2), (1, 3), (1, 5)]), "a machine twice");
    assert!(!keeps(&[(0, 5), (1, 0), (2, 5)]), "a machine without layers");
}

#[test]
fn kept_plan_fits_and_is_not_much_slower() {
    let mut rng = Rng(7);
    let (mut kept, mut left) = (0, 0);
    for case in 0..3000 {
        let (workers, layers) = (rng.range(1, 4), rng.range(1, 12));
        let (shape, mut machines) = random_problem(&mut rng, workers, layers);
        let Ok(before) = place(&shape, &machines) else { continue };
        for machine in &mut machines {
            machine.memory = machine.memory / 100 * rng.range(95, 110);
            machine.memory_bandwidth = machine.memory_bandwidth / 100 * rng.range(70, 130);
        }
        let Ok(best) = place(&shape, &machines) else {
            assert!(search::place(&shape, &machines, Some(&before)).is_err());
            continue;
        };
        let after = search::place(&shape, &machines, Some(&before)).unwrap();
        check_plan(&shape, &machines, &after);
        assert!(
            after.time_per_token as f64 <= best.time_per_token as f64 * MAX_SLOWDOWN,
            "{case}: {after:?} for {best:?}"
        );
        if after.assignments == before.assignments { kept += 1 } else { left += 1 }
    }
    assert!(kept > 500 && left > 50, "{kept} kept, {left} left");
}
