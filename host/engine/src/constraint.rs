//! Grammars and JSON schemas as token masks (llguidance).
//!
//! Invariant: the matcher has consumed exactly the tokens generated so far, less the `idle` last
//! ones, which came after it had stopped.

use std::sync::Arc;

use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{SimpleVob, TokEnv};
use llguidance::{Matcher, ParserFactory};
use tightwad_core::TokenId;

/// A grammar that cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the grammar or JSON schema cannot be used: {0}")]
pub struct ConstraintError(pub(crate) String);

/// A compiled constraint on the output, at its start; clone it for each session.
pub struct Constraint {
    matcher: Matcher,
    tokens: TokEnv,
    idle: usize,
}

impl Clone for Constraint {
    /// Clones share nothing but the grammar: a plain clone of the matcher would share its lexer.
    fn clone(&self) -> Self {
        Self { matcher: self.matcher.deep_clone(), tokens: self.tokens.clone(), idle: self.idle }
    }
}

impl Constraint {
    /// Compiles `grammar` for the vocabulary of `factory`.
    pub(crate) fn new(
        factory: &Arc<ParserFactory>,
        grammar: TopLevelGrammar,
    ) -> Result<Self, ConstraintError> {
        let parser = factory.create_parser(grammar);
        let matcher = Matcher::new(parser);
        match matcher.get_error() {
            Some(error) => Err(ConstraintError(error)),
            None => Ok(Self { matcher, tokens: factory.tok_env().clone(), idle: 0 }),
        }
    }

    /// The tokens allowed next; the end-of-sequence token is among them where the output may end.
    pub(crate) fn mask(&mut self) -> Result<SimpleVob, ConstraintError> {
        if self.matcher.is_stopped() {
            return Ok(self.tokens.tok_trie().singleton_token_set(self.tokens.tok_trie().eos_token()));
        }
        self.matcher.compute_mask().map_err(|error| ConstraintError(error.to_string()))
    }

    /// True when nothing may follow.
    pub(crate) fn is_complete(&self) -> bool {
        self.matcher.is_stopped()
    }

    /// Advances over a generated token.
    pub(crate) fn push(&mut self, token: TokenId) -> Result<(), ConstraintError> {
        if self.matcher.is_stopped() {
            self.idle += 1;
            return Ok(());
        }
        self.matcher.consume_token(token).map_err(|error| ConstraintError(error.to_string()))
    }

    /// Takes back the last `count` tokens.
    pub(crate) fn rollback(&mut self, count: usize) -> Result<(), ConstraintError> {
        let idle = count.min(self.idle);
        self.idle -= idle;
        if count == idle {
            return Ok(());
        }
        self.matcher.rollback(count - idle).map_err(|error| ConstraintError(error.to_string()))
    }
}
