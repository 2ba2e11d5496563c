//! The properties of a model that other machines and the HTTP endpoint use.

use serde::{Deserialize, Serialize};

/// The properties of a model that another machine needs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelFacts {
    /// SHA-256 over all tokens, in hexadecimal. Models with equal digests exchange token ids.
    pub vocabulary: String,
    /// SHA-256 over all headers and samples of the weights, in hexadecimal. Different digests: the models count as
    /// different weights. The page "Exactness" of the book says what equal digests imply.
    pub weights: String,
    /// Architecture, size and quantization from the GGUF file, such as `llama 135M Q4_1`.
    pub description: String,
    /// The size of the weights in bytes.
    pub bytes: u64,
    /// The maximum number of tokens of a sequence.
    pub context: u32,
    /// The number of sequences that run at the same time.
    pub slots: u32,
    /// True when the chat template supports tools.
    pub tools: bool,
    /// The number of the model's draft heads.
    #[serde(default, skip_serializing_if = "is_default")]
    pub heads: u32,
    /// The time of a forward pass over one row, in nanoseconds.
    pub time_per_token_ns: u64,
    /// The time per row of a forward pass over many rows, in nanoseconds.
    pub time_per_row_ns: u64,
}

impl ModelFacts {
    /// [`ModelFacts::vocabulary`] as bytes; `None` if the text is not a digest.
    #[must_use]
    pub fn vocabulary_digest(&self) -> Option<[u8; 32]> {
        crate::digest::parse_digest(&self.vocabulary)
    }
}

/// The load of a model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// Open sequences.
    pub active: usize,
    /// Requests that wait for a free slot.
    pub waiting: usize,
}

/// True for the default value. Serde leaves such fields out.
pub fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
