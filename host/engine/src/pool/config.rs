//! The placement of a pooled model's layers.

use serde::{Deserialize, Serialize};

/// The maximum number of workers in a pool (`GGML_RPC_MAX_SERVERS`).
pub const MAX_WORKERS: usize = 16;

/// True if contexts of pools use flash attention, which needs no temporary memory per head.
pub const FLASH_ATTENTION: bool = cfg!(target_os = "linux");

/// The placement of a model's layers: the first layers lie on the host, and the workers' layers follow in
/// order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolConfig {
    /// Number of layers on the host.
    pub host_layers: u32,
    /// The workers, in the order of their layers.
    pub workers: Vec<PoolWorker>,
    /// True if the host computes the output head. The last worker then sends activations, not logits.
    pub output_on_host: bool,
    /// Tensors that are not placed with their layer.
    pub tensor_overrides: Vec<TensorOverride>,
}

/// A worker and its layers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolWorker {
    /// Address of the worker's RPC server, as `HOST:PORT`.
    pub endpoint: String,
    /// Number of layers on the worker.
    pub layers: u32,
}

/// Tensors that are not placed with their layer, such as the experts of a mixture of experts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorOverride {
    /// A regular expression over tensor names, as for llama.cpp's `--override-tensor`.
    pub pattern: String,
    /// Index of the worker in [`PoolConfig::workers`]; `None`: the host's memory.
    pub worker: Option<usize>,
}
