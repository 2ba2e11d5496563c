//! Where the layers of a pooled model lie.

use serde::{Deserialize, Serialize};

/// Most workers of one pool (`GGML_RPC_MAX_SERVERS`).
pub const MAX_WORKERS: usize = 16;

/// True where a pool's contexts use flash attention, which needs no memory for every head.
pub const FLASH_ATTENTION: bool = cfg!(target_os = "linux");

/// Where the layers of a model lie. The first ones lie here, those of the workers follow in order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolConfig {
    /// Layers on this machine.
    pub here: u32,
    /// The workers, in the order of their layers.
    pub workers: Vec<PoolWorker>,
    /// Computes the output head here, so that activations come back and not logits.
    pub output_here: bool,
    /// Tensors that lie elsewhere than their layer.
    pub pins: Vec<Pin>,
}

/// One worker's part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolWorker {
    /// `HOST:PORT` of its RPC server.
    pub endpoint: String,
    /// Layers it holds.
    pub layers: u32,
}

/// Tensors that lie elsewhere than their layer, such as the experts of a mixture of experts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// A regular expression over tensor names, as llama.cpp's `--override-tensor` takes it.
    pub pattern: String,
    /// The worker, by its place in [`PoolConfig::workers`]; `None`: this machine's memory.
    pub worker: Option<usize>,
}
