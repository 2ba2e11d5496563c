//! The modes: backends made of other backends and a plugin.

mod health;
mod pooling;
mod speculation;

pub use pooling::{
    Absent, Found, Phase, Placed, PoolMemory, PoolPlan, PoolSaid, PoolSpec, PoolStatus, Pooled, Pooling,
    Pools, Running, WorkerSpec, memory_of, plan_pool, survey,
};
pub use speculation::{Speculation, Totals};
