//! The vocabulary of a model on a node.
//!
//! Invariant: every cached text came from the node, so the model's vocabulary bounds the cache.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};

use async_trait::async_trait;
use tightwad_core::{BackendError, TokenId, Tokenizer, sync};

use crate::client::link::{Link, backend_error};
use crate::client::timeouts::QUICK_CALL_TIMEOUT;
use crate::protocol::calls::{DetokenizeCall, DetokenizeReply, Piece, TokenizeCall, TokenizeReply};

/// A cache of token texts that fetches missing ones from the node.
pub(crate) struct Vocabulary {
    model: String,
    link: Arc<Link>,
    pieces: RwLock<HashMap<TokenId, Arc<[u8]>>>,
}

impl Vocabulary {
    pub(crate) fn new(model: &str, link: Arc<Link>) -> Self {
        Self { model: model.to_owned(), link, pieces: RwLock::default() }
    }

    /// Stores the text of a token.
    pub(crate) fn learn(&self, token: TokenId, piece: Piece) {
        if self.piece(token).is_none() {
            let bytes = Vec::from(piece).into();
            sync::write(&self.pieces).insert(token, bytes);
        }
    }

    /// The text of a token, if cached.
    pub(crate) fn piece(&self, token: TokenId) -> Option<Arc<[u8]>> {
        sync::read(&self.pieces).get(&token).cloned()
    }
}

#[async_trait]
impl Tokenizer for Vocabulary {
    async fn tokenize(&self, text: &str) -> Result<Vec<TokenId>, BackendError> {
        let call = TokenizeCall { model: self.model.clone(), text: text.to_owned(), request: None };
        let reply = self.link.call::<_, TokenizeReply>("/v1/node/tokenize", &call, QUICK_CALL_TIMEOUT).await;
        reply.map(|reply| reply.tokens).map_err(|error| backend_error(&self.link, error))
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
            let reply = reply.map_err(|error| backend_error(&self.link, error))?;
            missing.into_iter().zip(reply.pieces).for_each(|(token, piece)| self.learn(token, piece));
        }
        Ok(tokens.iter().filter_map(|token| self.piece(*token)).flat_map(|piece| piece.to_vec()).collect())
    }
}
