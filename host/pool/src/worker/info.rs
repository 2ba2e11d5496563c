//! The description of a worker.

use serde::{Deserialize, Serialize};

/// The version of the messages between hosts and workers.
pub(crate) const WORKER_PROTOCOL: u32 = 1;

/// The response of `GET /v1/worker`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerInfo {
    /// The version of tightwad on the worker.
    pub tightwad: String,
    /// The version of the messages.
    pub protocol: u32,
    /// The major and minor version of llama.cpp's RPC.
    pub rpc: (u8, u8),
    /// The compute device, such as `CPU (Intel Xeon ...)`.
    pub device: String,
    /// True when the device is a GPU.
    pub gpu: bool,
    /// The threads of a forward pass.
    pub threads: usize,
    /// The memory that the worker lends, in bytes.
    pub memory: u64,
    /// The part of `memory` that no pool uses, in bytes.
    pub free: u64,
    /// The weights that the worker reads per second while it decodes, in bytes. Measured at its start.
    pub memory_bandwidth: u64,
    /// The size of the cached tensors in bytes.
    pub cached: u64,
    /// The number of open tunnels.
    pub pools: usize,
    /// A random id of this start of the worker. Two addresses with the same id are the same worker. Empty: unknown.
    #[serde(default)]
    pub instance: String,
}
