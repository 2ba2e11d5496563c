//! What a worker says of itself.

use serde::{Deserialize, Serialize};

/// Version of the messages between hosts and workers.
pub(crate) const WORKER_PROTOCOL: u32 = 1;

/// What `GET /v1/worker` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerFacts {
    /// The worker's version.
    pub tightwad: String,
    /// The version of the messages.
    pub protocol: u32,
    /// Major and minor version of llama.cpp's RPC.
    pub rpc: (u8, u8),
    /// What it computes with, such as `CPU (Intel Xeon ...)`.
    pub device: String,
    /// True when that is a GPU.
    pub gpu: bool,
    /// Threads of a forward pass.
    pub threads: usize,
    /// Bytes it lends in all.
    pub memory: u64,
    /// Bytes of them that are free now.
    pub free: u64,
    /// Bytes of weights read in a second while one token is computed, as measured when it started.
    pub speed: u64,
    /// Bytes of tensors that it keeps, so that they need not be sent again.
    pub cached: u64,
    /// Pools that use it now.
    pub pools: usize,
}
