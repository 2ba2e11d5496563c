//! Simulations of whole swarms. `simulation/scenario.rs` describes their parameters.
// Tests fail by panicking.
#![allow(clippy::unwrap_used)]

#[path = "simulation/mod.rs"]
mod swarm;

use swarm::{Churn, Outcome, Scenario, run, single_pull};

/// Seconds in which the first seeder sends the model once, and the last piece passes from peer to peer.
fn ideal_seconds(scenario: &Scenario) -> f64 {
    let tail = scenario.peers.first as f64 / scenario.pieces as f64;
    scenario.size() / scenario.seeder * (1.0 + tail)
}

fn eight_peers() -> Scenario {
    Scenario { max_uploads: 4, ..Scenario::equal(8, 120) }
}

#[test]
fn eight_peers_need_little_more_time_than_one_copy() {
    for seed in 1..=3 {
        let scenario = Scenario { seed, ..eight_peers() };
        let outcome = run(&scenario);
        let last = outcome.last().unwrap();
        assert!(last < 1.3 * ideal_seconds(&scenario), "{last} of {}", ideal_seconds(&scenario));
        assert!(outcome.seeder < 1.6 * scenario.size(), "{} of {}", outcome.seeder, scenario.size());
        // Each peer receives the model once: the fetches of a piece share its blocks.
        assert!(outcome.sent < 8.01 * scenario.size(), "{}", outcome.sent);
    }
}

#[test]
fn equal_scenarios_have_equal_outcomes() {
    let (one, two) = (run(&eight_peers()), run(&eight_peers()));
    assert_eq!((one.peers, one.calls, one.fetches), (two.peers, two.calls, two.fetches));
}

/// The seeder leaves after 1.35 copies of the model, the other peers later, and new peers join.
fn abandoned(order: &str, seed: u64) -> Outcome {
    let mut scenario = Scenario {
        max_uploads: 4,
        seed,
        seeder_copies: 1.35,
        duration: 800.0,
        ..Scenario::equal(12, 100).order(order)
    };
    scenario.churn = Some(Churn { mean_stay: 400.0, arrivals_per_second: 0.03, quiet_seconds: 150.0 });
    run(&scenario)
}

#[test]
fn rarest_first_leaves_every_piece_behind_when_the_seeder_leaves_early() {
    for seed in 1..=2 {
        let rarest = abandoned("rarest", seed);
        assert!(rarest.done() as f64 > 0.75 * rarest.peers.len() as f64, "{:?}", rarest.peers);
        assert_eq!(abandoned("sequential", seed).done(), 0);
    }
}

#[test]
fn slow_peer_does_not_delay_the_others() {
    // One of the nine peers has a fiftieth of the others' uplink.
    let mut scenario = eight_peers();
    scenario.peers.rates = |peer| if peer == 3 { (2e4, 4e6) } else { (1e6, 4e6) };
    let last = run(&scenario).last().unwrap();
    assert!(last < 1.4 * ideal_seconds(&scenario), "{last} of {}", ideal_seconds(&scenario));
}

#[test]
fn pull_of_many_pieces_fetches_few_of_them_twice() {
    let cost = single_pull(5000, 100, 0.3);
    assert!((5000..5200).contains(&cost.fetches), "{cost:?}");
}
