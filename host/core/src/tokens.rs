//! Token ids, and what backends say of tokens.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The id of a token in a model's vocabulary.
pub type TokenId = u32;

/// What the model itself thought at one position: before temperature, filters and penalties.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLogprobs {
    /// Natural logarithm of the chosen token's probability.
    pub logprob: f32,
    /// The best tokens, most probable first, with their log-probabilities.
    pub top: Vec<(TokenId, f32)>,
}

/// A token that is final.
#[derive(Debug, Clone, PartialEq)]
pub struct Committed {
    /// The token.
    pub token: TokenId,
    /// Log-probabilities, when the settings ask for them.
    pub logprobs: Option<TokenLogprobs>,
}

/// Why a sequence ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finish {
    /// The model ended its turn, or a stop string was reached.
    Stop,
    /// `max_tokens` was reached.
    Length,
}

/// The outcome of one verification, or of one step of a decode.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Verified {
    /// What was committed: accepted proposals and one token more, unless the sequence ended. The
    /// token that ends a turn is not among them.
    pub committed: Vec<Committed>,
    /// How many proposals were accepted: of a tree, on one path.
    pub accepted: u32,
    /// Positions decided again by the one-token path.
    pub ties: u32,
    /// Rows of the pass over the proposals: each path behind rows of its own for what came before it. 0 where
    /// there were none.
    pub rows: u32,
    /// Time from the call to its answer, by the clock of the machine that owns the pass.
    pub took: Duration,
    /// What the request is charged for that time. It differs from `took` where requests share a pass: each pays for
    /// its own rows, at the price of a model that does nothing else.
    pub cost: Duration,
    /// Set when the sequence ended.
    pub finish: Option<Finish>,
}

impl Verified {
    /// What a caller is charged who waited `wall` for this: the way there and back, and the cost.
    #[must_use]
    pub fn charged(&self, wall: Duration) -> Duration {
        wall.saturating_sub(self.took) + self.cost
    }
}

/// A proposed token and the drafter's own probability for it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Proposal {
    /// The token.
    pub token: TokenId,
    /// 0 to 1.
    pub probability: f32,
}

/// What the model thinks of one token of a given text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scored {
    /// The token.
    pub token: TokenId,
    /// Natural logarithm of the model's probability for it.
    pub logprob: f32,
    /// How many tokens were more probable.
    pub rank: u32,
    /// The most probable token there.
    pub best: TokenId,
    /// Its log-probability.
    pub best_logprob: f32,
}
