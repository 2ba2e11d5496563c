//! The calls to a node and their replies.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tightwad_core::{Draft, FinishReason, TokenScore, WireRequest, is_default};

use crate::protocol::finite;
use crate::protocol::hash::TokenHash;
use crate::protocol::tree::{InvalidDraft, flatten, unflatten};

/// The purpose of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SessionRole {
    /// The session verifies and decodes.
    Target,
    /// The session proposes.
    Drafter,
    /// The session proposes with the model's draft heads, after a target session that has the same tokens.
    Heads,
}

/// `POST /v1/node/sessions`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct OpenCall {
    /// The model's name on the node.
    pub model: String,
    /// The purpose of the session.
    pub role: SessionRole,
    /// The request to answer.
    pub request: WireRequest,
    /// The prompt's tokens, if the caller has them (drafters, and targets that are opened again). These
    /// tokens replace the request's own prompt.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tokens: Vec<u32>,
    /// The committed tokens after the prompt.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub output: Vec<u32>,
    /// The maximum number of tokens to generate, including `output`. The caller sends it together with
    /// `tokens`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u32>,
}

/// The reply to [`OpenCall`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct OpenReply {
    /// The session's id, for the paths of later calls.
    pub session: String,
    /// Digest of the weights, so that the caller notices another model under the same name.
    pub weights: String,
    /// The prompt's tokens, if the caller did not send them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tokens: Vec<u32>,
    /// The prompt's text with special tokens written out, if the caller did not send tokens.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub text: String,
    /// Prompt tokens that were in the KV cache.
    pub cached: u32,
    /// The maximum number of tokens that the session generates.
    pub max_tokens: u32,
    /// Expected nanoseconds until a drafter has processed the prompt.
    #[serde(default)]
    pub startup_ns: u64,
}

/// The caller's position: the number of tokens, prompt included, and their hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Position {
    /// Number of tokens of prompt and output.
    pub at: u32,
    /// Hash of these tokens.
    pub hash: TokenHash,
}

/// `POST /v1/node/sessions/ID/verify`. The reply is one [`Step`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VerifyCall {
    /// The caller's position.
    #[serde(flatten)]
    pub position: Position,
    /// Tokens to verify; can be empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub draft: Vec<u32>,
    /// For a tree: the index in `draft` of each token's parent, or -1 for a root. If empty, each token
    /// follows the previous one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parents: Vec<i32>,
    /// Tokens that the caller committed after `position` without verification. `draft` follows them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unverified: Vec<u32>,
}

impl VerifyCall {
    /// A call that verifies `draft` after `position` and the `unverified` tokens.
    #[must_use]
    pub(crate) fn new(position: Position, unverified: &[u32], draft: &Draft) -> Self {
        let (tokens, parents) = flatten(draft);
        Self { position, draft: tokens, parents, unverified: unverified.to_vec() }
    }

    /// The draft of the call, as a list or a tree.
    ///
    /// # Errors
    ///
    /// [`InvalidDraft`] if a parent does not come before its child, or the paths are too long.
    pub(crate) fn draft(&self) -> Result<Draft, InvalidDraft> {
        unflatten(&self.draft, &self.parents)
    }
}

/// `POST /v1/node/sessions/ID/decode`. The reply has one [`Step`] per line.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct DecodeCall {
    /// The caller's position.
    #[serde(flatten)]
    pub position: Position,
    /// The maximum number of tokens to generate.
    pub max_tokens: u32,
    /// Tokens that the caller committed after `position` without verification.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unverified: Vec<u32>,
}

/// `POST /v1/node/sessions/ID/propose`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ProposeCall {
    /// The position up to which caller and drafter have the same tokens.
    #[serde(flatten)]
    pub position: Position,
    /// The tokens after `position`, committed or assumed.
    #[serde(default)]
    pub tokens: Vec<u32>,
    /// The maximum number of tokens to propose.
    pub max_tokens: u32,
    /// The drafter stops before a token with a lower probability.
    #[serde(default, with = "finite")]
    pub min_probability: f32,
}

/// The reply to [`ProposeCall`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ProposeReply {
    /// Proposed tokens with the drafter's probability for each.
    #[serde(with = "finite::pairs")]
    pub proposals: Vec<(u32, f32)>,
    /// Microseconds that the node spent on the call.
    #[serde(default)]
    pub elapsed_us: u64,
}

/// A token's text: a string if it is UTF-8, otherwise its bytes. (llama.cpp: piece.)
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Piece {
    /// Whole characters.
    Text(String),
    /// Incomplete characters.
    Bytes(Vec<u8>),
}

impl From<Vec<u8>> for Piece {
    fn from(bytes: Vec<u8>) -> Self {
        String::from_utf8(bytes).map_or_else(|error| Self::Bytes(error.into_bytes()), Self::Text)
    }
}

impl From<Piece> for Vec<u8> {
    fn from(piece: Piece) -> Self {
        match piece {
            Piece::Text(text) => text.into_bytes(),
            Piece::Bytes(bytes) => bytes,
        }
    }
}

/// The tokens that a verification or one step of a decode committed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Step {
    /// The committed tokens with their text.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tokens: Vec<(u32, Piece)>,
    /// Proposals that were accepted.
    #[serde(default, skip_serializing_if = "is_default")]
    pub accepted: u32,
    /// Positions that the one-token path decided again.
    #[serde(default, skip_serializing_if = "is_default")]
    pub ties: u32,
    /// Rows of the forward pass over the draft.
    #[serde(default, skip_serializing_if = "is_default")]
    pub rows: u32,
    /// The reason why the sequence ended; `None` if the sequence continues.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finish_reason: Option<FinishReason>,
    /// Microseconds that the node spent. A decode sends it only together with `cost_us`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub elapsed_us: u64,
    /// Attributed cost in microseconds, if it differs from `elapsed_us` because other requests shared the
    /// passes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_us: Option<u64>,
    /// One entry per token, if the request asks for log-probabilities.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub logprobs: Vec<WireLogprobs>,
    /// The error that ended a decode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Step {
    /// Sets the elapsed time and the attributed cost.
    pub(crate) fn set_times(&mut self, elapsed: Duration, cost: Duration) {
        let (elapsed, cost) = (microseconds(elapsed), microseconds(cost));
        self.elapsed_us = elapsed;
        self.cost_us = Some(cost).filter(|cost| *cost != elapsed);
    }

    /// The elapsed time and the attributed cost.
    #[must_use]
    pub(crate) fn times(&self) -> (Duration, Duration) {
        (
            Duration::from_micros(self.elapsed_us),
            Duration::from_micros(self.cost_us.unwrap_or(self.elapsed_us)),
        )
    }
}

fn microseconds(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// A token's log-probability and the best alternatives.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct WireLogprobs {
    /// The natural logarithm of the probability.
    #[serde(with = "finite")]
    pub logprob: f32,
    /// Token, text and log-probability of each alternative.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "finite::alternatives")]
    pub top: Vec<(u32, Piece, f32)>,
}

/// `POST /v1/node/score`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ScoreCall {
    /// The model's name on the node.
    pub model: String,
    /// The request that the answer belongs to.
    pub request: WireRequest,
    /// The text of the answer to score.
    pub answer: String,
    /// Index of the first token to score.
    #[serde(default, skip_serializing_if = "is_default")]
    pub from: usize,
    /// Index after the last token to score; `None`: to the end of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<usize>,
}

/// The reply to [`ScoreCall`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ScoreReply {
    /// One entry per scored token.
    pub tokens: Vec<ScoredToken>,
}

/// One token of a scored answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScoredToken {
    /// The token.
    pub token: u32,
    /// The token's text.
    pub text: Piece,
    /// Natural logarithm of the model's probability for it.
    #[serde(with = "finite")]
    pub logprob: f32,
    /// Number of tokens that are more probable.
    pub rank: u32,
    /// The most probable token at this position.
    pub best: u32,
    /// The log-probability of `best`.
    #[serde(with = "finite")]
    pub best_logprob: f32,
}

impl From<ScoredToken> for TokenScore {
    fn from(token: ScoredToken) -> Self {
        Self {
            token: token.token,
            logprob: token.logprob,
            rank: token.rank,
            best: token.best,
            best_logprob: token.best_logprob,
        }
    }
}

/// `POST /v1/node/tokenize`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct TokenizeCall {
    /// The model's name on the node.
    pub model: String,
    /// The text to tokenize, unless `request` is set.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub text: String,
    /// The request whose prompt the node renders and tokenizes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<WireRequest>,
}

/// The reply to [`TokenizeCall`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TokenizeReply {
    /// The tokens.
    pub tokens: Vec<u32>,
    /// The rendered prompt of a request.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub text: String,
    /// The maximum number of tokens that the request would generate.
    #[serde(default, skip_serializing_if = "is_default")]
    pub max_tokens: u32,
}

/// `POST /v1/node/detokenize`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct DetokenizeCall {
    /// The model's name on the node.
    pub model: String,
    /// The tokens.
    pub tokens: Vec<u32>,
}

/// The reply to [`DetokenizeCall`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DetokenizeReply {
    /// One piece per token.
    pub pieces: Vec<Piece>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn step_json_is_short_and_round_trips() {
        let step = Step {
            tokens: vec![(284, Piece::from(b" a".to_vec())), (9, Piece::from(vec![0xe2, 0x82]))],
            ..Step::default()
        };
        let text = serde_json::to_string(&step).unwrap();
        assert_eq!(text, r#"{"tokens":[[284," a"],[9,[226,130]]]}"#);
        assert_eq!(serde_json::from_str::<Step>(&text).unwrap(), step);
    }

    #[test]
    fn verify_call_sends_parents_for_trees_only() {
        let position = Position { at: 3, hash: TokenHash::new(&[1, 2, 3]) };
        let tree = Draft::from_paths([vec![1, 2, 3], vec![1, 4], vec![5, 2]]);
        let call = VerifyCall::new(position, &[], &tree);
        assert_eq!(
            (call.draft.as_slice(), call.parents.as_slice()),
            (&[1, 2, 3, 4, 5, 2][..], &[-1, 0, 1, 0, -1, 4][..])
        );
        assert_eq!(call.draft().unwrap(), tree);
        let list = VerifyCall::new(position, &[9], &vec![7, 8].into());
        assert!(list.parents.is_empty());
        assert_eq!(list.unverified, [9]);
        assert_eq!(list.draft().unwrap(), vec![7, 8].into());
    }
}
