//! What is asked of a node, and what it answers.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tightwad_core::{Draft, Finish, InvalidTree, Scored, WireRequest, is_default};

use crate::protocol::hash::TokenHash;

/// What a session is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Role {
    /// It verifies and decodes.
    Target,
    /// It proposes.
    Drafter,
}

/// `POST /v1/node/sessions`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct OpenCall {
    /// The model's name on the node.
    pub model: String,
    /// What the session is for.
    pub role: Role,
    /// What is to be answered.
    pub request: WireRequest,
    /// The prompt's tokens, where the caller has them (drafters, and targets opened again); then they
    /// count, not what the node makes of the request's own prompt.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tokens: Vec<u32>,
    /// What was committed after the prompt already.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub output: Vec<u32>,
    /// Most tokens to generate, `output` included; where `tokens` are sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u32>,
}

/// Its answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Opened {
    /// The session, for the path of later calls.
    pub session: String,
    /// The weights that answer, so that another model under the same name is noticed.
    pub weights: String,
    /// The prompt's tokens, where the caller did not send them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tokens: Vec<u32>,
    /// The prompt's text, with special tokens written out, where the caller did not send tokens.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub text: String,
    /// Tokens of the prompt that were in the cache.
    pub cached: u32,
    /// Most tokens it will generate.
    pub max_tokens: u32,
    /// Expected nanoseconds until a drafter has read the prompt.
    #[serde(default)]
    pub startup_ns: u64,
}

/// Where the caller stands: how many tokens, prompt included, and a hash of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Base {
    /// Tokens of prompt and output.
    pub at: u32,
    /// [`TokenHash`] of them.
    pub hash: TokenHash,
}

/// `POST /v1/node/sessions/ID/verify`; answered with one [`Step`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VerifyCall {
    /// Where the caller stands.
    #[serde(flatten)]
    pub base: Base,
    /// Tokens to verify; may be empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub draft: Vec<u32>,
    /// For a tree: the place in `draft` of the token before each; -1: it comes first. Without it each
    /// token follows the one before it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parents: Vec<i32>,
    /// Tokens that the caller committed behind `base` without asking; `draft` comes after them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unverified: Vec<u32>,
}

impl VerifyCall {
    /// Asks for `draft` to be verified at `base`, after `unverified` tokens.
    #[must_use]
    pub(crate) fn new(base: Base, unverified: &[u32], draft: &Draft) -> Self {
        let (draft_tokens, parents) = (Vec::new(), Vec::new());
        let mut call = Self { base, draft: draft_tokens, parents, unverified: unverified.to_vec() };
        if let [list] = draft.paths() {
            call.draft.clone_from(list);
            return call;
        }
        for path in draft.paths() {
            let mut parent = -1;
            for token in path {
                let known = call.draft.iter().zip(&call.parents).position(|own| own == (token, &parent));
                let at = known.unwrap_or_else(|| {
                    call.draft.push(*token);
                    call.parents.push(parent);
                    call.draft.len() - 1
                });
                parent = i32::try_from(at).unwrap_or(i32::MAX);
            }
        }
        call
    }

    /// The draft that was asked for.
    ///
    /// # Errors
    ///
    /// [`InvalidTree`] where a parent does not come before its child.
    pub(crate) fn draft(&self) -> Result<Draft, InvalidTree> {
        if self.parents.is_empty() {
            Ok(self.draft.clone().into())
        } else {
            Draft::tree(&self.draft, &self.parents)
        }
    }
}

/// `POST /v1/node/sessions/ID/decode`; answered with one [`Step`] a line.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct DecodeCall {
    /// Where the caller stands.
    #[serde(flatten)]
    pub base: Base,
    /// Most tokens to generate.
    pub max: u32,
    /// Tokens that the caller committed behind `base` without asking.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unverified: Vec<u32>,
}

/// `POST /v1/node/sessions/ID/propose`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ProposeCall {
    /// Where caller and drafter agree.
    #[serde(flatten)]
    pub base: Base,
    /// What follows there, committed or assumed.
    #[serde(default)]
    pub tokens: Vec<u32>,
    /// Most tokens to propose.
    pub max: u32,
    /// It stops before a token less probable than this.
    #[serde(default)]
    pub min_probability: f32,
}

/// Its answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ProposeAnswer {
    /// Token and the drafter's probability for it.
    pub proposals: Vec<(u32, f32)>,
    /// Microseconds the node spent on it.
    #[serde(default)]
    pub us: u64,
}

/// A token's text: a string where it is UTF-8, else its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Piece {
    /// Whole characters.
    Text(String),
    /// Parts of characters.
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

/// What a verification committed, or one step of a decode.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Step {
    /// The committed tokens with their text.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tokens: Vec<(u32, Piece)>,
    /// Proposals that were accepted.
    #[serde(default, skip_serializing_if = "is_default")]
    pub accepted: u32,
    /// Positions decided again by the one-token path.
    #[serde(default, skip_serializing_if = "is_default")]
    pub ties: u32,
    /// Rows of the pass over the proposals.
    #[serde(default, skip_serializing_if = "is_default")]
    pub rows: u32,
    /// Why the sequence ended, when it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finish: Option<Finish>,
    /// Microseconds that the node spent on it. In a decode only where `cost_us` is there.
    #[serde(default, skip_serializing_if = "is_default")]
    pub us: u64,
    /// Microseconds that the request is charged, where that differs because other requests shared its passes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_us: Option<u64>,
    /// A log-probability a token, where the request asked for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub logprobs: Vec<WireLogprobs>,
    /// What went wrong, in the middle of a decode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Step {
    /// Notes the node's time, and what of it the request is charged.
    pub(crate) fn timed(&mut self, took: Duration, cost: Duration) {
        let (took, cost) = (microseconds(took), microseconds(cost));
        self.us = took;
        self.cost_us = Some(cost).filter(|cost| *cost != took);
    }

    /// The node's time, and what of it the request is charged.
    #[must_use]
    pub(crate) fn times(&self) -> (Duration, Duration) {
        (Duration::from_micros(self.us), Duration::from_micros(self.cost_us.unwrap_or(self.us)))
    }
}

fn microseconds(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// A token's log-probability and the best alternatives.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct WireLogprobs {
    /// Natural logarithm.
    pub logprob: f32,
    /// Token, text, log-probability.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub top: Vec<(u32, Piece, f32)>,
}

/// `POST /v1/node/score`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ScoreCall {
    /// The model's name on the node.
    pub model: String,
    /// What was asked.
    pub request: WireRequest,
    /// The answer to look at.
    pub answer: String,
    /// The first token of it that is scored, by number.
    #[serde(default, skip_serializing_if = "is_default")]
    pub from: usize,
    /// The one behind the last; absent: up to the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<usize>,
}

/// Its answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ScoreAnswer {
    /// One entry a token of the answer.
    pub tokens: Vec<ScoredToken>,
}

/// One token of a scored answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScoredToken {
    /// The token.
    pub token: u32,
    /// Its text.
    pub text: Piece,
    /// Natural logarithm of the model's probability for it.
    pub logprob: f32,
    /// How many tokens were more probable.
    pub rank: u32,
    /// The most probable token there.
    pub best: u32,
    /// Its log-probability.
    pub best_logprob: f32,
}

impl From<ScoredToken> for Scored {
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
    /// The text, where it is one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub text: String,
    /// The request whose prompt is to be rendered and tokenized, where it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<WireRequest>,
}

/// Its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tokenized {
    /// The tokens.
    pub tokens: Vec<u32>,
    /// Of a request: the rendered prompt.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub text: String,
    /// Of a request: most tokens that would be generated.
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

/// Its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Detokenized {
    /// One piece a token.
    pub pieces: Vec<Piece>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_short_and_comes_back_whole() {
        let step = Step {
            tokens: vec![(284, Piece::from(b" a".to_vec())), (9, Piece::from(vec![0xe2, 0x82]))],
            ..Step::default()
        };
        let text = serde_json::to_string(&step).unwrap();
        assert_eq!(text, r#"{"tokens":[[284," a"],[9,[226,130]]]}"#);
        assert_eq!(serde_json::from_str::<Step>(&text).unwrap(), step);
    }

    #[test]
    fn a_tree_travels_as_tokens_with_parents_and_a_list_without() {
        let base = Base { at: 3, hash: TokenHash::of(&[1, 2, 3]) };
        let tree = Draft::of([vec![1, 2, 3], vec![1, 4], vec![5, 2]]);
        let call = VerifyCall::new(base, &[], &tree);
        assert_eq!(
            (call.draft.as_slice(), call.parents.as_slice()),
            (&[1, 2, 3, 4, 5, 2][..], &[-1, 0, 1, 0, -1, 4][..])
        );
        assert_eq!(call.draft().unwrap(), tree);
        let list = VerifyCall::new(base, &[9], &vec![7, 8].into());
        assert!(list.parents.is_empty());
        assert_eq!(list.unverified, [9]);
        assert_eq!(list.draft().unwrap(), vec![7, 8].into());
    }
}
