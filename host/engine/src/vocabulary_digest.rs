//! The digest of a vocabulary.

use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::token_type::LlamaTokenAttr;
use sha2::{Digest, Sha256};

/// SHA-256 over all tokens, and the number of bytes of the longest token.
pub(crate) fn hash_vocabulary(model: &LlamaModel) -> ([u8; 32], usize) {
    let tokens = model.tokens(true);
    hash_tokens(tokens.map(|(token, bytes)| {
        let is_unused = model.vocab().attr(token).contains(LlamaTokenAttr::Unused);
        (bytes, is_unused)
    }))
}

/// SHA-256 over `tokens`, each with true if the model never generates it. Unused tokens at the end are padding: models of
/// one family have vocabularies that differ in nothing else, and they exchange tokens.
fn hash_tokens(tokens: impl Iterator<Item = (Vec<u8>, bool)>) -> ([u8; 32], usize) {
    let mut hash = Sha256::new();
    let mut max_bytes = 0;
    let mut padding = Vec::new();
    for (bytes, is_unused) in tokens {
        max_bytes = max_bytes.max(bytes.len());
        padding.push(bytes);
        if is_unused {
            continue;
        }
        for bytes in padding.drain(..) {
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(&bytes);
        }
    }
    (hash.finalize().into(), max_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_at_the_end_does_not_change_the_digest() {
        let hash = |tokens: &[(&str, bool)]| {
            hash_tokens(tokens.iter().map(|(text, is_unused)| (text.as_bytes().to_vec(), *is_unused)))
        };
        let plain = hash(&[("a", false), ("b", false)]);
        assert_eq!(hash(&[("a", false), ("b", false), ("[PAD2]", true), ("[PAD3]", true)]).0, plain.0);
        assert_ne!(hash(&[("a", false), ("[PAD1]", true), ("b", false)]).0, plain.0);
        assert_ne!(hash(&[("a", false), ("b", false), ("c", false)]).0, plain.0);
        assert_eq!((plain.1, hash(&[("a", false), ("[PAD1]", true)]).1), (1, 6));
    }
}
