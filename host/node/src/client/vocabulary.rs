//! The vocabulary of a model on a node.
//!
//! Invariant: what is kept came from the node itself, so it is bounded by the model's vocabulary.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};

use async_trait::async_trait;
use tightwad_core::{BackendError, TokenId, Tokenizer, sync};

use crate::client::limits::QUICK;
use crate::client::link::{Link, error};
use crate::protocol::calls::{DetokenizeCall, Detokenized, Piece, TokenizeCall, Tokenized};

/// Asks the node for what it has not seen yet.
pub(crate) struct Vocabulary {
    model: String,
    link: Arc<Link>,
    pieces: RwLock<HashMap<TokenId, Arc<[u8]>>>,
}

impl Vocabulary {
    pub(crate) fn new(model: &str, link: Arc<Link>) -> Self {
        Self { model: model.to_owned(), link, pieces: RwLock::default() }
    }

    /// Notes the text of a token.
    pub(crate) fn learn(&self, token: TokenId, piece: Piece) {
        if self.piece(token).is_none() {
            let bytes = Vec::from(piece).into();
            sync::write(&self.pieces).insert(token, bytes);
        }
    }

    /// The text of a token, where it is known.
    pub(crate) fn piece(&self, token: TokenId) -> Option<Arc<[u8]>> {
        sync::read(&self.pieces).get(&token).cloned()
    }
}

#[async_trait]
impl Tokenizer for Vocabulary {
    async fn tokenize(&self, text: &str) -> Result<Vec<TokenId>, BackendError> {
        let call = TokenizeCall { model: self.model.clone(), text: text.to_owned(), request: None };
        let answer = self.link.call::<_, Tokenized>("/v1/node/tokenize", &call, QUICK).await;
        answer.map(|answer| answer.tokens).map_err(|fault| error(&self.link, fault))
    }

    async fn detokenize(&self, tokens: &[TokenId]) -> Result<Vec<u8>, BackendError> {
        let mut unknown: Vec<TokenId> =
            tokens.iter().copied().filter(|token| self.piece(*token).is_none()).collect();
        unknown.sort_unstable();
        unknown.dedup();
        if !unknown.is_empty() {
            let call = DetokenizeCall { model: self.model.clone(), tokens: unknown.clone() };
            let answer = self.link.call::<_, Detokenized>("/v1/node/detokenize", &call, QUICK).await;
            let answer = answer.map_err(|fault| error(&self.link, fault))?;
            unknown.into_iter().zip(answer.pieces).for_each(|(token, piece)| self.learn(token, piece));
        }
        Ok(tokens.iter().filter_map(|token| self.piece(*token)).flat_map(|piece| piece.to_vec()).collect())
    }
}
