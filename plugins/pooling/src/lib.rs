//! The pooling policy: places one model's layers over machines so that a token takes the least time.
//!
//! A plan is a chain of machines, each with a run of layers, the host first. `cost` says what a plan
//! costs, `problem` lays the numbers out, `chain` finds the best plan of one order of machines,
//! `exact` that of all orders where they are few, `climb` a good order where they are many, and `room`
//! knows what fits at all.

pub mod chain;
pub mod climb;
pub mod cost;
pub mod exact;
pub mod problem;
pub mod room;
pub mod search;

use tightwad_plugin_sdk::{Machine, Plan, Pooling, Refusal, Shape, export_pooling};

struct Pool;

impl Pooling for Pool {
    const NAME: &'static str = "pooling";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");

    fn place(shape: &Shape, machines: &[Machine]) -> Result<Plan, Refusal> {
        search::place(shape, machines)
    }
}

export_pooling!(Pool);
