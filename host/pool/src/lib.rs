//! Pools: models whose layers lie on several machines, connected by llama.cpp's RPC.
//!
//! A placement policy chooses the machine of each layer. The model runs in a child process, which ends when a worker is
//! lost. A supervisor then starts the process again over the remaining machines, and each stream continues from its
//! last committed token.

mod backend;
mod child;
mod error;
mod launcher;
mod layout;
mod pool;
mod pool_launcher;
mod pools;
mod probe;
mod probe_results;
mod saved_plan;
mod state;
mod status;
mod supervisor;
mod worker;

pub use backend::PoolBackend;
pub use child::{ChildError, ChildMessage};
pub use error::PoolError;
pub use layout::{InvalidPlan, LayerAssignment};
pub use pool::Pool;
pub use pools::Pools;
pub use probe::{ProbedWorker, WorkerError, probe_worker};
pub use state::{Phase, RunningPool};
pub use status::{PoolMemory, PoolPlan, PoolStatus, plan_pool, pool_memory, pool_status};
pub use worker::server::serve_worker;
pub use worker::service::{WorkerConfig, WorkerService};
pub use worker::state::WorkerState;
