//! The configuration of a text server.

use std::path::PathBuf;
use std::time::Duration;

use tightwad_core::Token;

use crate::dialect::Dialect;

/// The default of [`TextServerSpec::first_token_timeout`]: a slow machine reads a long prompt for minutes.
pub const DEFAULT_FIRST_TOKEN_TIMEOUT: Duration = Duration::from_secs(600);

/// The address of a text server and its roles.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TextServerSpec {
    /// The server's API.
    pub dialect: Dialect,
    /// `http://HOST:PORT`, with or without `/v1`.
    pub url: String,
    /// The model's name on the server; default: its only model.
    pub model: Option<String>,
    /// The server's API key.
    pub api_key: Option<Token>,
    /// The backend's name in reports; default: the model's name.
    pub name: Option<String>,
    /// The method by which the server verifies as a target.
    pub verify: Verification,
    /// The maximum time until the first token of an answer.
    pub first_token_timeout: Duration,
}

/// The method by which a server verifies.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Verification {
    /// The server is not a target.
    None,
    /// Replay: the server generates freely, and the target compares the draft with the text.
    Replay,
    /// The server verifies in one pass, by the log-probabilities of a prompt. The GGUF file has the
    /// vocabulary of the server's model.
    Logprobs(PathBuf),
}
