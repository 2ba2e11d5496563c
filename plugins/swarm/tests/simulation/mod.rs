//! A simulated swarm with its own clock: each peer runs the picker, fetches share uplinks and downlinks, and peers
//! join and leave. Equal scenarios give equal outcomes.
//!
//! `scenario` has the parameters and the outcome, `network` moves bytes, `peer` is one peer, `world` processes
//! events.

// Each user of this module needs only a part of it.
#![allow(dead_code, unused_imports)]

mod network;
mod peer;
mod scenario;
mod single_pull;
mod world;

pub use scenario::{Churn, Outcome, Peers, Scenario};
pub use single_pull::single_pull;

/// Nanoseconds per second.
pub const SECOND: f64 = 1e9;

/// Simulates `scenario`.
pub fn run(scenario: &Scenario) -> Outcome {
    world::World::new(scenario).run()
}
