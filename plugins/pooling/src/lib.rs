//! The pooling policy: places one model's layers over machines so that a token takes the least time.
//!
//! A plan is a chain of machines, each with a run of layers, the host first. `cost` says what a plan
//! costs, `problem` lays the numbers out, `chain` finds the best plan of one order of machines,
//! `exact` that of all orders where they are few, `climb` a good order where they are many, `room` knows
//! what fits at all, and `keep` stays with the plan of the last time where that costs little.

pub mod chain;
pub mod climb;
pub mod cost;
pub mod exact;
pub mod keep;
pub mod problem;
pub mod room;
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
