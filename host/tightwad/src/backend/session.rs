//! Sessions: one sequence on a backend, driven by a mode.

use std::time::Duration;

use async_trait::async_trait;
pub use tightwad_engine::{Committed, Proposal, Verified};
use tightwad_engine::{Sampling, TokenId};
use tokio::sync::mpsc;

use super::BackendError;

/// Committed steps of a plain decode, one token (and perhaps the finish) each.
pub type DecodeStream = mpsc::UnboundedReceiver<Result<Verified, BackendError>>;

/// A target's session. Dropping it frees its sequence.
#[async_trait]
pub trait Target: Send + Sync {
    /// Verifies `draft` (may be empty) after the committed tokens, in one forward pass, and
    /// commits what the target itself would have generated.
    async fn verify(&mut self, draft: &[TokenId]) -> Result<Verified, BackendError>;

    /// Generates up to `max` tokens plainly; the stream ends after them or with a finish.
    fn decode(&mut self, max: u32) -> Result<DecodeStream, BackendError>;

    /// The bytes of `token` (empty for special tokens).
    fn bytes(&self, token: TokenId) -> Vec<u8>;

    /// How long a forward pass is expected to take.
    fn expected(&self) -> Pass;
}

/// How long a target's forward pass is expected to take; zero: unknown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pass {
    /// Over one row.
    pub token: Duration,
    /// Each row of a pass over many.
    pub row: Duration,
}

/// How long drafting is expected to take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Expected {
    /// Until the first token can be drafted: the prompt must be read.
    pub startup: Duration,
    /// One token.
    pub token: Duration,
}

/// A drafter's session. Dropping it frees its sequence.
#[async_trait]
pub trait Drafter: Send + Sync {
    /// The drafter's name.
    fn name(&self) -> &str;

    /// True when drafting takes the target's own processor, so that drafting ahead gains nothing.
    fn shares_processor(&self) -> bool;

    /// How long drafting is expected to take, as measured in earlier work.
    fn expected(&self) -> Expected;

    /// Proposes up to `max` tokens after the prompt and the `output` committed so far (the whole
    /// output, every time: the drafter finds out what is new), stopping after a token less
    /// probable than `min_probability`.
    async fn propose(
        &mut self,
        output: &[TokenId],
        max: u32,
        min_probability: f32,
    ) -> Result<Vec<Proposal>, BackendError>;
}

/// An open target and what a drafter must know to follow it.
pub struct OpenTarget {
    /// The session.
    pub session: Box<dyn Target>,
    /// The prompt's tokens.
    pub prompt: Vec<TokenId>,
    /// Tokens of the prompt found in the cache.
    pub cached: u32,
    /// Most tokens the session will generate.
    pub max_tokens: u32,
    /// The sampling settings, with the seed that drafter and target share.
    pub sampling: Sampling,
    /// The constraint on the output, for drafters that can follow it.
    pub constraint: Option<tightwad_engine::Constraint>,
    /// Digest of the target's vocabulary.
    pub vocabulary: [u8; 32],
}
