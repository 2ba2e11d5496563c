//! Grammars and JSON schemas as token masks (llguidance).
//!
//! Invariant: the matcher has consumed all generated tokens except the last `tokens_after_stop`. The sequence
//! appended these tokens after the matcher had stopped.

use std::sync::Arc;

use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{SimpleVob, TokEnv};
use llguidance::{Matcher, ParserFactory};
use tightwad_core::TokenId;

/// A grammar or JSON schema that cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the grammar or JSON schema is unusable: {0}")]
pub struct ConstraintError(pub(crate) String);

/// A compiled constraint on the output, in its initial state. Each session gets a clone.
pub struct Constraint {
    matcher: Matcher,
    token_env: TokEnv,
    tokens_after_stop: usize,
    /// Runs before each mask: tests inject panics here.
    #[cfg(test)]
    pub(crate) before_mask: Option<Arc<dyn Fn() + Send + Sync>>,
}

impl Clone for Constraint {
    /// A deep clone: a plain clone of the matcher would share the lexer's state.
    fn clone(&self) -> Self {
        Self {
            matcher: self.matcher.deep_clone(),
            token_env: self.token_env.clone(),
            tokens_after_stop: self.tokens_after_stop,
            #[cfg(test)]
            before_mask: self.before_mask.clone(),
        }
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
            None => Ok(Self {
                matcher,
                token_env: factory.tok_env().clone(),
                tokens_after_stop: 0,
                #[cfg(test)]
                before_mask: None,
            }),
        }
    }

    /// The tokens that are allowed next. The mask contains the end-of-sequence token if the output may end
    /// here.
    pub(crate) fn mask(&mut self) -> Result<SimpleVob, ConstraintError> {
        #[cfg(test)]
        if let Some(before_mask) = &self.before_mask {
            before_mask();
        }
        if self.matcher.is_stopped() {
            return Ok(self.token_env.tok_trie().singleton_token_set(self.token_env.tok_trie().eos_token()));
        }
        self.matcher.compute_mask().map_err(|error| ConstraintError(error.to_string()))
    }

    /// True if the output must end here.
    pub(crate) fn is_complete(&self) -> bool {
        self.matcher.is_stopped()
    }

    /// Advances the matcher over a generated token.
    pub(crate) fn push(&mut self, token: TokenId) -> Result<(), ConstraintError> {
        if self.matcher.is_stopped() {
            self.tokens_after_stop += 1;
            return Ok(());
        }
        self.matcher.consume_token(token).map_err(|error| ConstraintError(error.to_string()))
    }

    /// Removes the last `count` tokens.
    pub(crate) fn rollback(&mut self, count: usize) -> Result<(), ConstraintError> {
        let uncounted = count.min(self.tokens_after_stop);
        self.tokens_after_stop -= uncounted;
        if count == uncounted {
            return Ok(());
        }
        self.matcher.rollback(count - uncounted).map_err(|error| ConstraintError(error.to_string()))
    }
}
