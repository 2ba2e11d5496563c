//! The messages between a host and a node: `host/PROTOCOL.md` explains every field.

use serde::{Deserialize, Serialize};
use tightwad_engine::SamplingSpec;

use super::{Finish, Format, Prompt, Request, Tool, ToolChoice};

/// The version of these messages. A node of another version is refused.
pub const PROTOCOL: u32 = 1;

/// What a model is, as far as another machine must know.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelFacts {
    /// SHA-256 over all tokens, in hexadecimal: equal digests exchange token ids.
    pub vocabulary: String,
    /// SHA-256 over samples of the weights' file, in hexadecimal: equal digests generate the same.
    pub weights: String,
    /// As the GGUF says it: `llama 135M Q4_1`.
    pub description: String,
    /// Bytes of the weights.
    pub bytes: u64,
    /// Tokens a sequence may have.
    pub context: u32,
    /// Sequences that run at once.
    pub slots: u32,
    /// True when the chat template knows tools.
    pub tools: bool,
    /// Nanoseconds of a forward pass over one row.
    pub token_ns: u64,
    /// Nanoseconds of each row of a pass over many.
    pub row_ns: u64,
}

/// How busy a model is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// Sequences that are open.
    pub active: usize,
    /// Requests that wait for one.
    pub waiting: usize,
}

/// A model that a node lends.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NodeModel {
    /// The name to ask for.
    pub name: String,
    /// What it is.
    #[serde(flatten)]
    pub facts: ModelFacts,
    /// How busy it is.
    #[serde(flatten)]
    pub load: Load,
}

/// What `GET /v1/node` answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NodeFacts {
    /// The node's version.
    pub tightwad: String,
    /// The version of the messages.
    pub protocol: u32,
    /// The node's clock, in milliseconds since 1970.
    pub unix_ms: u64,
    /// Open sessions.
    pub sessions: usize,
    /// The models it lends.
    pub models: Vec<NodeModel>,
}

/// A request on its way to another machine.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WireRequest {
    /// Identifies the request in both logs.
    pub id: String,
    /// What to answer.
    pub prompt: Prompt,
    /// How to choose tokens; only what is not the default.
    #[serde(default)]
    pub sampling: SamplingSpec,
    /// Most tokens to generate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u32>,
    /// The form of the output.
    #[serde(default)]
    pub format: Format,
    /// Tools the model may call.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<Tool>,
    /// Whether and which tool must be called.
    #[serde(default)]
    pub tool_choice: ToolChoice,
}

impl WireRequest {
    /// `request` as it travels. Stop strings stay: text is made where the client is.
    #[must_use]
    pub fn of(request: &Request) -> Self {
        Self {
            id: request.id.clone(),
            prompt: request.prompt.clone(),
            sampling: (*request.sampling).clone(),
            max_tokens: request.max_tokens,
            format: request.format.clone(),
            tools: request.tools.clone(),
            tool_choice: request.tool_choice.clone(),
        }
    }

    /// The request that travelled.
    ///
    /// # Errors
    ///
    /// Sampling settings out of range.
    pub fn request(self) -> Result<Request, tightwad_engine::InvalidSampling> {
        Ok(Request {
            id: self.id,
            prompt: self.prompt,
            sampling: tightwad_engine::Sampling::new(self.sampling)?,
            max_tokens: self.max_tokens,
            stop: Vec::new(),
            format: self.format,
            tools: self.tools,
            tool_choice: self.tool_choice,
        })
    }
}

/// What a session is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// It verifies and decodes.
    Target,
    /// It proposes.
    Drafter,
}

/// `POST /v1/node/sessions`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OpenCall {
    /// The model's name on the node.
    pub model: String,
    /// What the session is for.
    pub role: Role,
    /// What is to be answered.
    pub request: WireRequest,
    /// The prompt's tokens, where the caller has them (drafters, and targets opened again); then the
    /// request's own prompt is not looked at.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tokens: Vec<u32>,
    /// What was committed after the prompt already.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub output: Vec<u32>,
}

/// Its answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Opened {
    /// The session, for the path of later calls.
    pub session: String,
    /// The weights that answer, so that another model under the same name is noticed.
    pub weights: String,
    /// The prompt's tokens, where the caller did not send them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tokens: Vec<u32>,
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
pub struct Base {
    /// Tokens of prompt and output.
    pub at: u32,
    /// [`TokenHash`] of them.
    pub hash: TokenHash,
}

/// A running hash of a list of tokens (FNV-1a, 64 bits): it tells an honest node that it stands
/// elsewhere; it is no protection against a dishonest one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenHash(u64);

impl Default for TokenHash {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl TokenHash {
    /// The hash of `tokens`.
    #[must_use]
    pub fn of(tokens: &[u32]) -> Self {
        let mut hash = Self::default();
        hash.extend(tokens);
        hash
    }

    /// Goes on with `tokens`.
    pub fn extend(&mut self, tokens: &[u32]) {
        for byte in tokens.iter().flat_map(|token| token.to_le_bytes()) {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

impl Serialize for TokenHash {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:016x}", self.0))
    }
}

impl<'de> Deserialize<'de> for TokenHash {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        let hash = u64::from_str_radix(&text, 16).map_err(serde::de::Error::custom)?;
        Ok(Self(hash))
    }
}

/// `POST /v1/node/sessions/ID/verify`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyCall {
    /// Where the caller stands.
    #[serde(flatten)]
    pub base: Base,
    /// Tokens to verify; may be empty.
    #[serde(default)]
    pub draft: Vec<u32>,
}

/// `POST /v1/node/sessions/ID/decode`; answered with one [`Step`] a line.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DecodeCall {
    /// Where the caller stands.
    #[serde(flatten)]
    pub base: Base,
    /// Most tokens to generate.
    pub max: u32,
}

/// `POST /v1/node/sessions/ID/propose`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ProposeCall {
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
pub struct ProposeAnswer {
    /// Token and the drafter's probability for it.
    pub proposals: Vec<(u32, f32)>,
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
pub struct Step {
    /// The committed tokens with their text.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tokens: Vec<(u32, Piece)>,
    /// Proposals that were accepted.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub accepted: u32,
    /// Positions decided again by the one-token path.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub ties: u32,
    /// Why the sequence ended, when it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finish: Option<Finish>,
    /// A log-probability a token, where the request asked for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub logprobs: Vec<WireLogprobs>,
    /// What went wrong, in the middle of a decode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A token's log-probability and the best alternatives.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WireLogprobs {
    /// Natural logarithm.
    pub logprob: f32,
    /// Token, text, log-probability.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub top: Vec<(u32, Piece, f32)>,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// `POST /v1/node/score`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ScoreCall {
    /// The model's name on the node.
    pub model: String,
    /// What was asked.
    pub request: WireRequest,
    /// The answer to look at.
    pub answer: String,
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
    fn a_hash_goes_on_where_it_was() {
        let mut hash = TokenHash::of(&[1, 2]);
        hash.extend(&[3]);
        assert_eq!(hash, TokenHash::of(&[1, 2, 3]));
        let text = serde_json::to_string(&hash).unwrap();
        assert_eq!(serde_json::from_str::<TokenHash>(&text).unwrap(), hash);
        assert_ne!(hash, TokenHash::of(&[1, 2, 4]));
    }
}
