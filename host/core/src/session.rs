//! Sessions: one sequence on a backend, open for several calls of a mode.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::constraint::Constraint;
use crate::draft::Draft;
use crate::error::BackendError;
use crate::request::Request;
use crate::tokens::{Proposal, StepResult, TokenId};

/// A target session. Dropping the session frees its sequence.
#[async_trait]
pub trait Target: Send + Sync {
    /// Verifies `draft` after the committed tokens, in one forward pass. The draft can be empty. Commits the tokens
    /// that the target would have generated itself.
    async fn verify(&mut self, draft: &Draft) -> Result<StepResult, BackendError>;

    /// Appends unverified tokens to the committed ones. Stops before the first token that the request forbids or that
    /// ends the turn. Returns the number of appended tokens: 0 if [`TargetSource::resumes`] is false.
    ///
    /// [`TargetSource::resumes`]: crate::TargetSource::resumes
    async fn append_unverified(&mut self, _tokens: &[TokenId]) -> Result<usize, BackendError> {
        Ok(0)
    }

    /// Starts to decode up to `max_tokens` tokens without drafts.
    async fn decode(&mut self, max_tokens: u32) -> Result<(), BackendError>;

    /// Returns the next step of the decode: one token, and the finish reason at the end. `None` after the last step.
    async fn step(&mut self) -> Result<Option<StepResult>, BackendError>;

    /// The bytes of a committed `token`; empty for special tokens.
    fn bytes(&self, token: TokenId) -> Vec<u8>;

    /// The expected time of a forward pass.
    fn expected_cost(&self) -> PassCost;

    /// The device that computes the forward passes.
    fn device(&self) -> Device;

    /// False after a target with other weights than the primary took part.
    fn is_exact(&self) -> bool {
        true
    }
}

/// The device that runs a model. Models on the same device run one after the other.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Device {
    /// No device: the computation takes almost no time.
    None,
    /// The CPU of this machine.
    LocalCpu,
    /// A device that no other model uses, such as a GPU.
    Dedicated,
    /// Another machine or a pool, by its address or name.
    Remote(String),
}

impl Device {
    /// The device of the machine in `url`. Loopback addresses are the CPU of this machine.
    #[must_use]
    pub fn from_url(url: &str) -> Self {
        let authority_and_path = url.split("://").last().unwrap_or_default();
        let host = authority_and_path.split('/').next().unwrap_or_default();
        let host = match host.split_once(']') {
            Some((literal, _)) => &host[..=literal.len()],
            None => host.rsplit_once(':').map_or(host, |(host, _)| host),
        };
        let is_local = host.starts_with("127.") || host == "localhost" || host == "[::1]";
        if is_local { Self::LocalCpu } else { Self::Remote(host.to_owned()) }
    }

    /// True when drafting on this device during a pass on `target` saves no time.
    #[must_use]
    pub fn is_shared_with(&self, target: &Self) -> bool {
        *self == Self::None || (self == target && *self != Self::Dedicated)
    }
}

/// The expected time of a target's forward pass. Zero means unknown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PassCost {
    /// The time of a pass over one row.
    pub time_per_token: Duration,
    /// The time per row of a pass over many rows.
    pub time_per_row: Duration,
    /// The round trip of a call, without the pass.
    pub round_trip: Duration,
}

/// The expected time of drafting.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DraftCost {
    /// The time until the first token can be drafted, mainly the prefill of the prompt.
    pub startup: Duration,
    /// The time per drafted token.
    pub time_per_token: Duration,
    /// The round trip of a call, without the drafting.
    pub round_trip: Duration,
}

/// A drafter session. Dropping the session frees its sequence.
#[async_trait]
pub trait Drafter: Send + Sync {
    /// The drafter's name.
    fn name(&self) -> &str;

    /// The device that computes the drafts. Drafting ahead saves no time on the target's device.
    fn device(&self) -> Device;

    /// The expected time of drafting, from earlier measurements.
    fn expected_cost(&self) -> DraftCost;

    /// Proposes up to `max_tokens` tokens after the prompt and `output`. Stops after a token that is less probable than
    /// `min_probability`.
    ///
    /// `output` holds all committed tokens in each call. The drafter itself finds the tokens that are new since its
    /// last call.
    async fn propose(
        &mut self,
        output: &[TokenId],
        max_tokens: u32,
        min_probability: f32,
    ) -> Result<Vec<Proposal>, BackendError>;
}

/// Converts between text and the tokens of one vocabulary.
#[async_trait]
pub trait Tokenizer: Send + Sync {
    /// Returns the tokens of `text`. Names of special tokens in `text` are treated as plain text.
    async fn tokenize(&self, text: &str) -> Result<Vec<TokenId>, BackendError>;

    /// Returns the bytes of `tokens`. The bytes can begin or end inside a character.
    async fn detokenize(&self, tokens: &[TokenId]) -> Result<Vec<u8>, BackendError>;
}

/// The vocabulary and chat template of a model, without its weights. Prepares requests as the model does.
#[async_trait]
pub trait PromptReader: Send + Sync {
    /// The digest of the vocabulary.
    fn vocabulary(&self) -> [u8; 32];

    /// The tokenizer of the vocabulary.
    fn tokenizer(&self) -> Arc<dyn Tokenizer>;

    /// Renders and tokenizes the prompt of `request`. Compiles no constraint.
    ///
    /// # Errors
    ///
    /// Returns [`BackendError::Invalid`] if the template refuses the request, or if the prompt is too long.
    async fn prepare(&self, request: &Arc<Request>) -> Result<PreparedRequest, BackendError>;

    /// The bytes of `token`; empty for special tokens.
    fn bytes(&self, token: TokenId) -> Vec<u8>;

    /// True if `token` ends the model's turn.
    fn ends_turn(&self, token: TokenId) -> bool;
}

/// A request with its prompt, rendered and tokenized for one model. A drafter needs this prompt to follow its target.
#[derive(Clone)]
pub struct PreparedRequest {
    /// The request.
    pub request: Arc<Request>,
    /// The prompt's tokens.
    pub prompt: Arc<[TokenId]>,
    /// The prompt's text, including the special tokens of the chat template.
    pub text: Arc<str>,
    /// The maximum number of generated tokens.
    pub max_tokens: u32,
    /// The constraint on the output, if this process compiled one for the model's vocabulary.
    pub constraint: Option<Constraint>,
    /// The tokenizer of the model's vocabulary.
    pub tokenizer: Arc<dyn Tokenizer>,
}

/// The state of an interrupted generation, from which another target continues.
#[derive(Clone)]
pub struct ResumePoint {
    /// The prompt's tokens.
    pub prompt: Arc<[TokenId]>,
    /// The committed tokens.
    pub output: Vec<TokenId>,
    /// The maximum number of generated tokens, including `output`.
    pub max_tokens: u32,
}

/// A target session that was just opened.
pub struct OpenedTarget {
    /// The session.
    pub session: Box<dyn Target>,
    /// Tokens of the prompt that were already in the KV cache.
    pub cached_tokens: u32,
    /// The request with the target's prompt.
    pub prepared: PreparedRequest,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_is_identified_by_its_machine() {
        let node = Device::from_url("http://10.0.0.2:7710");
        assert_eq!(node, Device::Remote("10.0.0.2".to_owned()));
        assert_eq!(Device::from_url("http://127.0.0.1:7710/v1"), Device::LocalCpu);
        assert_eq!(Device::from_url("http://[::1]:80"), Device::LocalCpu);
        assert_eq!(Device::from_url("http://[::1]"), Device::LocalCpu);
        assert!(node.is_shared_with(&node.clone()));
        assert!(!Device::LocalCpu.is_shared_with(&node));
        assert!(!Device::Dedicated.is_shared_with(&Device::Dedicated));
        assert!(Device::None.is_shared_with(&node));
    }
}
