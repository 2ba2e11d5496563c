//! A swarm with a clock of its own: peers that each run the policy, uplinks and downlinks that fetches share, peers
//! that come and leave. The same plan gives the same outcome.
//!
//! `plan` says what is simulated, `network` moves bytes, `node` is one peer, `world` lets things happen.

// Not every user of this needs all of it.
#![allow(dead_code, unused_imports)]

mod alone;
mod network;
mod node;
mod plan;
mod world;

pub use alone::alone;
pub use plan::{Churn, Outcome, Peers, Plan};

/// Nanoseconds in a second.
pub const SECOND: f64 = 1e9;

/// Simulates `plan`.
pub fn run(plan: &Plan) -> Outcome {
    world::World::new(plan).run()
}
