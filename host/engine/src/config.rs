//! The configuration of an engine.

/// The configuration of an engine.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Context length of a sequence in tokens. 0: the trained context length, or less if memory does not
    /// suffice.
    pub context: u32,
    /// Number of sequences that run at the same time. 0: eight, or fewer if memory has no room for eight full
    /// contexts. A `context` of 0 counts as at most 32,768 tokens here.
    pub slots: u32,
    /// Maximum number of requests that wait for a slot.
    pub max_queue: usize,
    /// Threads of a forward pass. 0: one per core.
    pub threads: u32,
    /// Layers on a GPU.
    pub gpu_layers: u32,
    /// Logit difference below which a one-token pass decides a position again. `None`: measured when the
    /// model loads.
    pub tie_threshold: Option<f32>,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self { context: 0, slots: 0, max_queue: 64, threads: 0, gpu_layers: 999, tie_threshold: None }
    }
}

impl EngineConfig {
    pub(crate) fn shares_cpu(&self) -> bool {
        !(cfg!(feature = "cuda") && self.gpu_layers > 0)
    }
}
