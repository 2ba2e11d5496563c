//! The results of a generation: pieces of text while it runs, and an outcome at the end.

use serde::Serialize;

use crate::tokens::FinishReason;

/// One piece of an answer on its way to the client.
///
/// The text is complete UTF-8 and final. The text contains no part of a stop string.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// The new text; empty when the event only carries log-probabilities.
    pub text: String,
    /// One entry per committed token, when the request asked for log-probabilities.
    pub logprobs: Vec<TextLogprobs>,
}

/// A token's text and log-probability, with alternatives.
#[derive(Debug, Clone, PartialEq)]
pub struct TextLogprobs {
    /// The token's bytes.
    pub bytes: Vec<u8>,
    /// The natural logarithm of the token's probability.
    pub logprob: f32,
    /// The most probable tokens at this position: bytes and log-probability.
    pub top: Vec<(Vec<u8>, f32)>,
}

/// The token counts of a generation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Tokens generated.
    pub completion_tokens: u32,
    /// Tokens of the prompt that were already in the KV cache.
    pub cached_tokens: u32,
}

/// Describes how an answer was generated: the `tightwad` object of a response.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Report {
    /// `plain`, `speculation`, ...
    pub mode: String,
    /// True when the target committed every token.
    pub exact: bool,
    /// Rounds of a draft and its verification.
    pub rounds: u32,
    /// Proposed tokens.
    pub drafted: u32,
    /// Proposed tokens that the target committed.
    pub accepted: u32,
    /// Proposed tokens without verification, because they were outdated or their verification did not pay off.
    pub wasted: u32,
    /// Positions that the one-token path decided again.
    pub ties: u32,
    /// Tokens committed without the target.
    #[serde(skip_serializing_if = "is_zero")]
    pub unverified: u32,
    /// The rule of the consensus.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// The share of audited tokens that the target would have chosen, over all requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agreement: Option<f64>,
    /// The gate's report.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gate: Option<Box<GateReport>>,
    /// The names of the drafters.
    pub drafters: Vec<String>,
    /// The plugins of this request: name, and SHA-256 of the component.
    pub plugins: Vec<(String, String)>,
    /// The failure of the plugin, if the host finished the answer without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fallback: Option<String>,
}

/// Describes how a gate generated an answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct GateReport {
    /// `approved`, `corrected`, `rejected` (the reviewer answers itself) or `unreviewed` (the reviewer was lost).
    pub verdict: String,
    /// The member of the fleet that wrote the released candidate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub writer: Option<String>,
    /// The share of the candidate's tokens that stayed in the answer.
    pub kept_share: f64,
    /// Tokens of the candidate that the client received before the review ended.
    #[serde(skip_serializing_if = "is_zero")]
    pub released_early_tokens: u32,
    /// Reviews that came from the cache.
    #[serde(skip_serializing_if = "is_zero")]
    pub reviews_cached: u32,
    /// Tokens that the reviewer generated.
    pub reviewer_generated_tokens: u32,
    /// Tokens that the reviewer scored without generating them.
    pub reviewer_scored_tokens: u32,
    /// Seconds of the fleet's generation, of the reviews, and of the reviewer's correction or own answer.
    pub seconds: [f64; 3],
}

/// True if the count is 0. A response leaves out such counts.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(count: &u32) -> bool {
    *count == 0
}

impl Report {
    /// Adds the counts of another part of the same answer.
    pub fn add(&mut self, other: &Self) {
        self.exact &= other.exact;
        self.rounds = self.rounds.saturating_add(other.rounds);
        self.drafted = self.drafted.saturating_add(other.drafted);
        self.accepted = self.accepted.saturating_add(other.accepted);
        self.wasted = self.wasted.saturating_add(other.wasted);
        self.ties = self.ties.saturating_add(other.ties);
        self.unverified = self.unverified.saturating_add(other.unverified);
        self.fallback = self.fallback.take().or_else(|| other.fallback.clone());
    }
}

/// The end of a generation.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The reason why the generation ended.
    pub finish_reason: FinishReason,
    /// The token counts.
    pub usage: Usage,
    /// Describes how the answer was generated.
    pub report: Report,
}
