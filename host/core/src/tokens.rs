//! Token ids, and the results of backends per token.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The id of a token in a model's vocabulary.
pub type TokenId = u32;

/// The model's log-probabilities at one position, before temperature, filters and penalties.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLogprobs {
    /// The natural logarithm of the chosen token's probability.
    pub logprob: f32,
    /// The most probable tokens, in falling order, with their log-probabilities.
    pub top: Vec<(TokenId, f32)>,
}

/// A final token of the answer.
#[derive(Debug, Clone, PartialEq)]
pub struct CommittedToken {
    /// The token.
    pub token: TokenId,
    /// Log-probabilities, if the request asks for them.
    pub logprobs: Option<TokenLogprobs>,
}

/// The reason why a sequence ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// The model ended its turn, or the text reached a stop string.
    Stop,
    /// The sequence reached `max_tokens`.
    Length,
}

/// The result of one verification, or of one step of a decode.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StepResult {
    /// The committed tokens: the accepted proposals and one further token, unless the sequence ended. The token that
    /// ends the turn is not included.
    pub committed: Vec<CommittedToken>,
    /// The number of accepted proposals. The accepted proposals of a tree lie on one path.
    pub accepted: u32,
    /// Positions that the one-token path decided again.
    pub ties: u32,
    /// The rows of the pass over the proposals, including the rows of committed tokens before each path. 0 without
    /// proposals.
    pub rows: u32,
    /// The time from the call to its reply, by the clock of the machine that runs the pass.
    pub elapsed: Duration,
    /// The attributed cost of the request. The cost differs from `elapsed` if requests share a pass. Each request then
    /// pays for its own rows, as if the model had no other request.
    pub cost: Duration,
    /// The reason why the sequence ended; `None` if the sequence continues.
    pub finish_reason: Option<FinishReason>,
}

impl StepResult {
    /// The round trip and the attributed cost, for a caller that waited `wall_time` for this step.
    #[must_use]
    pub fn charged_time(&self, wall_time: Duration) -> Duration {
        wall_time.saturating_sub(self.elapsed) + self.cost
    }
}

/// A proposed token and the drafter's probability for it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Proposal {
    /// The token.
    pub token: TokenId,
    /// The drafter's probability, 0 to 1.
    pub probability: f32,
}

/// The model's score of one token of a given text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TokenScore {
    /// The token.
    pub token: TokenId,
    /// The natural logarithm of the token's probability.
    pub logprob: f32,
    /// The number of more probable tokens.
    pub rank: u32,
    /// The most probable token at this position.
    pub best: TokenId,
    /// The log-probability of `best`.
    pub best_logprob: f32,
}
