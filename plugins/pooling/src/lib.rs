//! The placement policy of pools: it places one model's layers on machines for the least time per token.
//!
//! A plan is a chain of machines with a run of layers each, the host first. `cost` estimates the time of a plan, and
//! `problem` prepares the numbers. `layer_dp` finds the best plan for one order of machines, `exact` the best over
//! all orders of few machines, and `local_search` a good order of many. `capacity` decides which orders fit at all.
//! `hysteresis` keeps the previous plan if that costs little.

pub mod capacity;
pub mod cost;
pub mod exact;
pub mod hysteresis;
pub mod layer_dp;
pub mod local_search;
pub mod problem;
pub mod search;

use tightwad_plugin_sdk::{Machine, PlacementPolicy, Plan, Refusal, Shape, export_placement_policy};

struct Pool;

impl PlacementPolicy for Pool {
    const NAME: &'static str = "pooling";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");

    fn place(shape: &Shape, machines: &[Machine], previous: Option<&Plan>) -> Result<Plan, Refusal> {
        search::place(shape, machines, previous)
    }
}

export_placement_policy!(Pool);
