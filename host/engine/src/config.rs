//! How to run a model.

/// How to run a model.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Tokens per sequence; 0: what the model was trained for, as far as memory allows.
    pub context: u32,
    /// Sequences that run at once; 0: eight, or fewer where memory has no room for the
    /// context of as many, or for 32,768 tokens each.
    pub slots: u32,
    /// Requests that may wait for a sequence.
    pub queue: usize,
    /// Threads a forward pass uses; 0: one a core.
    pub threads: u32,
    /// Layers to put on a GPU.
    pub gpu_layers: u32,
    /// Difference in a logit below which a position is decided again by a one-token pass; `None`:
    /// measured when the model is loaded.
    pub tie_threshold: Option<f32>,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self { context: 0, slots: 0, queue: 64, threads: 0, gpu_layers: 999, tie_threshold: None }
    }
}

impl EngineConfig {
    pub(crate) fn takes_turns(&self) -> bool {
        !(cfg!(feature = "cuda") && self.gpu_layers > 0)
    }
}
