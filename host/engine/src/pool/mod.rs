//! Pools: the layers of one model on several machines, through llama.cpp's RPC backend. [`serve()`] is the
//! worker's side, and [`PoolConfig`] is the host's side.
//!
//! llama.cpp aborts the process when a worker dies or sends an invalid reply. So a process that holds a
//! pooled model, or that serves as a worker, has no other task.

pub(crate) mod config;
pub(crate) mod device;
pub(crate) mod load;
pub(crate) mod serve;
pub(crate) mod shape;

pub use config::{FLASH_ATTENTION, MAX_WORKERS, PoolConfig, PoolWorker, TensorOverride};
pub use device::{Device, MemoryBandwidth, device, measure_memory_bandwidth};
pub use serve::{RPC_PROTOCOL_VERSION, serve};
pub use shape::{LayerShape, ModelShape};
