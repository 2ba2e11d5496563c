//! The digest of a vocabulary.

use llama_cpp_2::model::LlamaModel;
use sha2::{Digest, Sha256};

/// SHA-256 over all tokens, and the number of bytes of the longest token.
pub(crate) fn hash_vocabulary(model: &LlamaModel) -> ([u8; 32], usize) {
    let mut hash = Sha256::new();
    let mut max_bytes = 0;
    for (_, bytes) in model.tokens(true) {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(&bytes);
        max_bytes = max_bytes.max(bytes.len());
    }
    (hash.finalize().into(), max_bytes)
}
