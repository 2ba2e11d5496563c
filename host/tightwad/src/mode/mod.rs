//! The modes: backends made of other backends and a plugin.

mod auditor;
mod consensus;
mod driven;
mod gate;
mod pooling;
mod speculation;
pub mod swarm;
mod totals;

pub use consensus::Consensus;
pub use gate::{Gate, GateParts, GateTotals};
pub use pooling::{
    Absent, Found, Phase, Placed, PoolMemory, PoolPlan, PoolSaid, PoolSpec, PoolStatus, Pooled, Pooling,
    Pools, Running, WorkerSpec, memory_of, plan_pool, survey,
};
pub use speculation::Speculation;
pub use totals::Totals;
