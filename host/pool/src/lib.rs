//! Pooling: one model's layers over many machines, through llama.cpp's RPC.
//!
//! A plugin says which layers go where; the model runs in a process of its own, which ends when a worker
//! is lost; a supervisor then starts it anew over what is left, and every stream goes on from its last
//! committed token.

mod child;
mod error;
mod kept;
mod launch;
mod layout;
mod pooled;
mod pooling;
mod pools;
mod start;
mod state;
mod status;
mod supervisor;
mod survey;
mod worker;

pub use child::{ChildError, PoolSaid};
pub use error::PoolError;
pub use layout::{Placed, WrongPlan};
pub use pooled::Pooled;
pub use pooling::Pooling;
pub use pools::Pools;
pub use state::{Phase, Running};
pub use status::{PoolMemory, PoolPlan, PoolStatus, memory_of, plan_pool, status_of};
pub use survey::{Absent, Found, survey};
pub use worker::lender::{Lender, LenderConfig};
pub use worker::server::serve_worker;
pub use worker::state::WorkerState;
