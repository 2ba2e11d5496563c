//! Whole swarms, simulated: see `simulation/plan.rs` for what is said of them.
// Tests fail by panicking.
#![allow(clippy::unwrap_used)]

#[path = "simulation/mod.rs"]
mod swarm;

use swarm::{Churn, Outcome, Plan, alone, run};

/// Seconds in which the first seeder sends the model once, and the last piece goes from peer to peer.
fn ideal(plan: &Plan) -> f64 {
    let tail = plan.peers.first as f64 / plan.pieces as f64;
    plan.size() / plan.seeder * (1.0 + tail)
}

fn eight() -> Plan {
    Plan { uploads: 4, ..Plan::equal(8, 120) }
}

#[test]
fn eight_peers_have_a_model_in_little_more_time_than_it_takes_to_send_it_once() {
    for seed in 1..=3 {
        let plan = Plan { seed, ..eight() };
        let outcome = run(&plan);
        let last = outcome.last().unwrap();
        assert!(last < 1.3 * ideal(&plan), "{last} of {}", ideal(&plan));
        assert!(outcome.seeder < 1.6 * plan.size(), "{} of {}", outcome.seeder, plan.size());
        // Each got it once: fetches of one piece share it.
        assert!(outcome.sent < 8.01 * plan.size(), "{}", outcome.sent);
    }
}

#[test]
fn the_same_plan_has_the_same_outcome() {
    let (one, two) = (run(&eight()), run(&eight()));
    assert_eq!((one.peers, one.calls, one.fetches), (two.peers, two.calls, two.fetches));
}

/// The seeder leaves when it has sent 1.35 models, others later, and new ones come.
fn abandoned(order: &str, seed: u64) -> Outcome {
    let mut plan =
        Plan { uploads: 4, seed, seeder_sends: 1.35, until: 800.0, ..Plan::equal(12, 100).order(order) };
    plan.churn = Some(Churn { stays: 400.0, come: 0.03, from: 150.0 });
    run(&plan)
}

#[test]
fn every_piece_is_left_behind_by_a_seeder_that_leaves_early() {
    for seed in 1..=2 {
        let rarest = abandoned("rarest", seed);
        assert!(rarest.done() as f64 > 0.75 * rarest.peers.len() as f64, "{:?}", rarest.peers);
        assert_eq!(abandoned("sequential", seed).done(), 0);
    }
}

#[test]
fn a_slow_seeder_is_no_burden() {
    // One of nine has a fiftieth of the others' uplink.
    let mut plan = eight();
    plan.peers.rates = |peer| if peer == 3 { (2e4, 4e6) } else { (1e6, 4e6) };
    let last = run(&plan).last().unwrap();
    assert!(last < 1.4 * ideal(&plan), "{last} of {}", ideal(&plan));
}

#[test]
fn a_pull_of_many_pieces_asks_for_few_of_them_twice() {
    let cost = alone(5000, 100, 0.3);
    assert!((5000..5200).contains(&cost.fetches), "{cost:?}");
}
