//! What comes back: pieces of text while it runs, an outcome at the end.

use serde::Serialize;

use crate::tokens::Finish;

/// One piece of an answer on its way to the client. Text is whole UTF-8 and final: no part of a
/// stop string is ever in it.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// The new text; may be empty when it only carries log-probabilities.
    pub text: String,
    /// One entry a committed token, when the request asked for them.
    pub logprobs: Vec<TextLogprobs>,
}

/// A token's text and log-probability, with alternatives.
#[derive(Debug, Clone, PartialEq)]
pub struct TextLogprobs {
    /// The token's bytes.
    pub bytes: Vec<u8>,
    /// Natural logarithm of its probability.
    pub logprob: f32,
    /// The best tokens at this position: bytes and log-probability.
    pub top: Vec<(Vec<u8>, f32)>,
}

/// Tokens read and written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Tokens generated.
    pub completion_tokens: u32,
    /// Tokens of the prompt that were already in the cache.
    pub cached_tokens: u32,
}

/// How an answer came to be: the `tightwad` object of a response.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Report {
    /// `plain`, `speculation`, ...
    pub mode: String,
    /// True when every token was committed by the target.
    pub exact: bool,
    /// Propose-verify rounds.
    pub rounds: u32,
    /// Tokens proposed.
    pub drafted: u32,
    /// Proposed tokens that the target committed.
    pub accepted: u32,
    /// Tokens proposed and not verified: drafted ahead in vain, or not worth it.
    pub wasted: u32,
    /// Positions decided again by the one-token path.
    pub ties: u32,
    /// Tokens committed without the target.
    #[serde(skip_serializing_if = "is_none")]
    pub unverified: u32,
    /// The rule of the consensus.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// The share of audited tokens that the target would have chosen too, over all requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agreement: Option<f64>,
    /// What a gate did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gate: Option<Box<GateReport>>,
    /// Names of the drafters.
    pub drafters: Vec<String>,
    /// The plugins that took part, by name, with the SHA-256 of their component.
    pub plugins: Vec<(String, String)>,
    /// Why the plugin was left before the end, when it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fallback: Option<String>,
}

/// How a gate came to an answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct GateReport {
    /// `approved`, `corrected`, `rejected` (the reviewer's own answer) or `unreviewed` (it was lost).
    pub verdict: String,
    /// Who wrote what was passed on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub writer: Option<String>,
    /// The share of it that was kept.
    pub kept: f64,
    /// Tokens of it that went out before the review was over.
    #[serde(skip_serializing_if = "is_none")]
    pub passed_early: u32,
    /// Reviews that had been made for another request.
    #[serde(skip_serializing_if = "is_none")]
    pub reviews_cached: u32,
    /// Tokens that the reviewer generated.
    pub reviewer_decoded: u32,
    /// Tokens that the reviewer only read.
    pub reviewer_read: u32,
    /// Seconds of writing, of reviewing, and until the end after that.
    pub seconds: [f64; 3],
}

/// True for counts that go without saying.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_none(count: &u32) -> bool {
    *count == 0
}

impl Report {
    /// Adds the figures of another part of the same answer.
    pub fn add(&mut self, other: &Self) {
        self.exact &= other.exact;
        self.rounds += other.rounds;
        self.drafted += other.drafted;
        self.accepted += other.accepted;
        self.wasted += other.wasted;
        self.ties += other.ties;
        self.unverified += other.unverified;
        self.fallback = self.fallback.take().or_else(|| other.fallback.clone());
    }
}

/// The end of a generation.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Why it ended.
    pub finish: Finish,
    /// Tokens read and written.
    pub usage: Usage,
    /// How the answer came to be.
    pub report: Report,
}
