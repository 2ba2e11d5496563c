//! Sessions: one sequence on a backend, driven by a mode.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::constraint::Constraint;
use crate::draft::Draft;
use crate::error::BackendError;
use crate::request::Request;
use crate::tokens::{Proposal, TokenId, Verified};

/// A target's session. Dropping it frees its sequence.
#[async_trait]
pub trait Target: Send + Sync {
    /// Verifies `draft` (may be empty) after the committed tokens, in one forward pass, and
    /// commits what the target itself would have generated.
    async fn verify(&mut self, draft: &Draft) -> Result<Verified, BackendError>;

    /// Appends tokens that were not verified, as if they had been committed, up to the first that the
    /// request forbids or that ends the turn; how many. 0 where [`TargetSource::resumes`] is false.
    ///
    /// [`TargetSource::resumes`]: crate::TargetSource::resumes
    async fn accept(&mut self, _tokens: &[TokenId]) -> Result<usize, BackendError> {
        Ok(0)
    }

    /// Begins to generate up to `max` tokens plainly.
    async fn decode(&mut self, max: u32) -> Result<(), BackendError>;

    /// The next step of the decode: one token, and perhaps the finish. `None`: it is over, after
    /// `max` tokens or a finish.
    async fn step(&mut self) -> Result<Option<Verified>, BackendError>;

    /// The bytes of a committed `token` (empty for special tokens).
    fn bytes(&self, token: TokenId) -> Vec<u8>;

    /// How long a forward pass is expected to take.
    fn expected(&self) -> Pass;

    /// Where it computes.
    fn processor(&self) -> Processor;

    /// False once tokens came from other weights than the first ones.
    fn is_exact(&self) -> bool {
        true
    }
}

/// Where something computes: what shares a processor takes turns.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Processor {
    /// Nowhere in particular: it takes next to nothing.
    Nothing,
    /// This machine's processor.
    Here,
    /// A processor that nothing else of ours uses, such as a GPU of its own.
    Own,
    /// Another machine, by its address.
    At(String),
}

impl Processor {
    /// Of the machine that `url` names.
    #[must_use]
    pub fn of(url: &str) -> Self {
        let rest = url.split("://").last().unwrap_or_default();
        let host = rest.split('/').next().unwrap_or_default();
        let host = host.rsplit_once(':').map_or(host, |(host, _)| host);
        let here = host.starts_with("127.") || host == "localhost" || host == "[::1]";
        if here { Self::Here } else { Self::At(host.to_owned()) }
    }

    /// True when drafting here while the target computes there gains nothing.
    #[must_use]
    pub fn is_shared_with(&self, target: &Self) -> bool {
        *self == Self::Nothing || (self == target && *self != Self::Own)
    }
}

/// How long a target's forward pass is expected to take; zero: unknown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pass {
    /// Over one row.
    pub token: Duration,
    /// Each row of a pass over many.
    pub row: Duration,
    /// What a call takes besides the pass: the way there and back.
    pub round_trip: Duration,
}

/// How long drafting is expected to take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Expected {
    /// Until the first token can be drafted: the prompt must be read.
    pub startup: Duration,
    /// One token.
    pub token: Duration,
    /// What a call takes besides: the way there and back.
    pub round_trip: Duration,
}

/// A drafter's session. Dropping it frees its sequence.
#[async_trait]
pub trait Drafter: Send + Sync {
    /// The drafter's name.
    fn name(&self) -> &str;

    /// Where it computes: where the target does, drafting ahead gains nothing.
    fn processor(&self) -> Processor;

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

/// Text to tokens and back, in one vocabulary.
#[async_trait]
pub trait Tokenizer: Send + Sync {
    /// The tokens of `text`; special tokens written out in it are plain text.
    async fn tokenize(&self, text: &str) -> Result<Vec<TokenId>, BackendError>;

    /// The bytes of `tokens`, which need not be whole characters.
    async fn detokenize(&self, tokens: &[TokenId]) -> Result<Vec<u8>, BackendError>;
}

/// Vocabulary and chat template of a model without its weights: reads requests as the model does.
#[async_trait]
pub trait PromptReader: Send + Sync {
    /// The digest of the vocabulary.
    fn vocabulary(&self) -> [u8; 32];

    /// The vocabulary at work.
    fn tokenizer(&self) -> Arc<dyn Tokenizer>;

    /// Renders and tokenizes the prompt of `request`; no constraint is compiled.
    ///
    /// # Errors
    ///
    /// [`BackendError::Invalid`] where the template refuses the request, or the prompt is too long.
    async fn read(&self, request: &Arc<Request>) -> Result<Task, BackendError>;

    /// The bytes of `token`; empty for special tokens.
    fn bytes(&self, token: TokenId) -> Vec<u8>;

    /// True for tokens that end the model's turn.
    fn ends_turn(&self, token: TokenId) -> bool;
}

/// A request as one model reads it: what a drafter must know to follow its target.
#[derive(Clone)]
pub struct Task {
    /// The request.
    pub request: Arc<Request>,
    /// The prompt's tokens.
    pub prompt: Arc<[TokenId]>,
    /// The prompt's text, with the special tokens of the model's chat template.
    pub text: Arc<str>,
    /// Most tokens that will be generated.
    pub max_tokens: u32,
    /// The constraint on the output, compiled for the model's vocabulary, where it was compiled here.
    pub constraint: Option<Constraint>,
    /// The model's vocabulary, at work.
    pub tokenizer: Arc<dyn Tokenizer>,
}

/// Where another target was left: generation goes on from there.
#[derive(Clone)]
pub struct Left {
    /// The prompt's tokens.
    pub prompt: Arc<[TokenId]>,
    /// What was committed after it.
    pub output: Vec<TokenId>,
    /// Most tokens to generate, `output` included.
    pub max_tokens: u32,
}

/// An open target.
pub struct OpenTarget {
    /// The session.
    pub session: Box<dyn Target>,
    /// Tokens of the prompt found in the cache.
    pub cached: u32,
    /// The request as the target reads it.
    pub task: Task,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_told_apart_by_machine() {
        let node = Processor::of("http://10.0.0.2:7710");
        assert_eq!(node, Processor::At("10.0.0.2".to_owned()));
        assert_eq!(Processor::of("http://127.0.0.1:7710/v1"), Processor::Here);
        assert_eq!(Processor::of("http://[::1]:80"), Processor::Here);
        assert!(node.is_shared_with(&node.clone()));
        assert!(!Processor::Here.is_shared_with(&node));
        assert!(!Processor::Own.is_shared_with(&Processor::Own));
        assert!(Processor::Nothing.is_shared_with(&node));
    }
}
