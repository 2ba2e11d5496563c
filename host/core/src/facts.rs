//! What other machines and the endpoint know of a model.

use serde::{Deserialize, Serialize};

/// What a model is, as far as another machine must know.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelFacts {
    /// SHA-256 over all tokens, in hexadecimal: equal digests exchange token ids.
    pub vocabulary: String,
    /// SHA-256 over samples of the weights' file, in hexadecimal: equal digests generate the same.
    pub weights: String,
    /// As the GGUF says it: `llama 135M Q4_1`.
    pub description: String,
    /// Bytes of the weights.
    pub bytes: u64,
    /// Tokens a sequence may have.
    pub context: u32,
    /// Sequences that run at once.
    pub slots: u32,
    /// True when the chat template knows tools.
    pub tools: bool,
    /// True for models with recurrent layers: their state cannot be rolled back.
    #[serde(default, skip_serializing_if = "is_default")]
    pub recurrent: bool,
    /// Nanoseconds of a forward pass over one row.
    pub token_ns: u64,
    /// Nanoseconds of each row of a pass over many.
    pub row_ns: u64,
}

impl ModelFacts {
    /// [`ModelFacts::vocabulary`] as bytes; `None` where it is no digest.
    #[must_use]
    pub fn vocabulary_digest(&self) -> Option<[u8; 32]> {
        crate::digest::digest(&self.vocabulary)
    }
}

/// How busy a model is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// Sequences that are open.
    pub active: usize,
    /// Requests that wait for one.
    pub waiting: usize,
}

/// True for the default value: serde leaves such fields out.
pub fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
