//! The vocabulary of a model on a node.
//!
//! Invariant: the cache has at most [`MAX_CACHE_BYTES`]. A node that makes up more texts empties its own cache.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};

use async_trait::async_trait;
use tightwad_core::{BackendError, TokenId, Tokenizer, sync};

use crate::client::checks::{check_pieces, check_tokens};
use crate::client::link::{Link, backend_error};
use crate::client::timeouts::QUICK_CALL_TIMEOUT;
use crate::protocol::calls::{DetokenizeCall, DetokenizeReply, Piece, TokenizeCall, TokenizeReply};

/// The maximum memory of the cache in bytes. A vocabulary of 256,000 tokens takes 20 MB.
const MAX_CACHE_BYTES: usize = 128 << 20;
/// The memory of a cached token besides its text, in bytes.
const ENTRY_BYTES: usize = 64;

/// A cache of token texts that fetches missing ones from the node.
pub(crate) struct Vocabulary {
    model: String,
    link: Arc<Link>,
    cache: RwLock<Cache>,
    max_bytes: usize,
}

#[derive(Default)]
struct Cache {
    pieces: HashMap<TokenId, Arc<[u8]>>,
    bytes: usize,
}

impl Vocabulary {
    pub(crate) fn new(model: &str, link: Arc<Link>) -> Self {
        Self { model: model.to_owned(), link, cache: RwLock::default(), max_bytes: MAX_CACHE_BYTES }
    }

    /// Stores the text of a token.
    pub(crate) fn learn(&self, token: TokenId, piece: Piece) {
        if self.piece(token).is_some() {
            return;
        }
        let piece: Arc<[u8]> = Vec::from(piece).into();
        let mut cache = sync::write(&self.cache);
        let bytes = ENTRY_BYTES + piece.len();
        if cache.bytes + bytes > self.max_bytes {
            tracing::warn!(
                node = self.link.name,
                tokens = cache.pieces.len(),
                "emptied the cache of token texts"
            );
            *cache = Cache::default();
        }
        if cache.pieces.insert(token, piece).is_none() {
            cache.bytes += bytes;
        }
    }

    /// The text of a token, if cached.
    pub(crate) fn piece(&self, token: TokenId) -> Option<Arc<[u8]>> {
        sync::read(&self.cache).pieces.get(&token).cloned()
    }
}

#[async_trait]
impl Tokenizer for Vocabulary {
    async fn tokenize(&self, text: &str) -> Result<Vec<TokenId>, BackendError> {
        let call = TokenizeCall { model: self.model.clone(), text: text.to_owned(), request: None };
        let reply = self.link.call::<_, TokenizeReply>("/v1/node/tokenize", &call, QUICK_CALL_TIMEOUT).await;
        let checked = reply.and_then(|reply| match check_tokens(&reply.tokens) {
            Ok(()) => Ok(reply.tokens),
            Err(error) => Err(self.link.invalid_reply(&error)),
        });
        checked.map_err(|error| backend_error(&self.link, error))
    }

    async fn detokenize(&self, tokens: &[TokenId]) -> Result<Vec<u8>, BackendError> {
        let mut missing: Vec<TokenId> =
            tokens.iter().copied().filter(|token| self.piece(*token).is_none()).collect();
        missing.sort_unstable();
        missing.dedup();
        if !missing.is_empty() {
            let call = DetokenizeCall { model: self.model.clone(), tokens: missing.clone() };
            let reply =
                self.link.call::<_, DetokenizeReply>("/v1/node/detokenize", &call, QUICK_CALL_TIMEOUT).await;
            let checked = reply.and_then(|reply| match check_pieces(&reply.pieces, &missing) {
                Ok(()) => Ok(reply.pieces),
                Err(error) => Err(self.link.invalid_reply(&error)),
            });
            let pieces = checked.map_err(|error| backend_error(&self.link, error))?;
            missing.into_iter().zip(pieces).for_each(|(token, piece)| self.learn(token, piece));
        }
        Ok(tokens.iter().filter_map(|token| self.piece(*token)).flat_map(|piece| piece.to_vec()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cache_of_texts_is_bounded() {
        let link = Link::new("node".to_owned(), "127.0.0.1:1".parse().unwrap(), None, None).unwrap();
        let vocabulary = Vocabulary { max_bytes: 1000, ..Vocabulary::new("m", Arc::new(link)) };
        for token in 0..100_000 {
            vocabulary.learn(token, Piece::Text("word".to_owned()));
            assert_eq!(vocabulary.piece(token).as_deref(), Some(&b"word"[..]));
            assert!(sync::read(&vocabulary.cache).bytes <= 1000);
        }
    }
}
