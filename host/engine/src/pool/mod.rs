//! One model's layers over many machines, through llama.cpp's RPC backend: the side that computes for
//! others ([`serve()`]) and the side that spreads a model ([`PoolConfig`]).
//!
//! llama.cpp aborts the process when a worker dies or answers nonsense: a process that holds a pooled
//! model, and one that serves, does nothing else.

pub(crate) mod config;
pub(crate) mod device;
pub(crate) mod load;
pub(crate) mod serve;
pub(crate) mod shape;

pub use config::{FLASH_ATTENTION, MAX_WORKERS, Pin, PoolConfig, PoolWorker};
pub use device::{Device, Speed, device, measure_speed};
pub use serve::{RPC_PROTOCOL, serve};
pub use shape::{LayerShape, ModelShape};
