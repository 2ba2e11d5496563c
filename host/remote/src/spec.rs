//! What a script says of a text server.

use std::path::PathBuf;

use tightwad_core::Token;

use crate::dialect::Dialect;

/// How a server is reached, and as what.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TextServerSpec {
    /// What it speaks.
    pub dialect: Dialect,
    /// `http://HOST:PORT`, without `/v1`.
    pub url: String,
    /// The model's name there; default: the only one it has.
    pub model: Option<String>,
    /// Its API key.
    pub token: Option<Token>,
    /// The name in reports; default: the model's.
    pub name: Option<String>,
    /// Whether and how it may be a target.
    pub verify: Verification,
}

/// How a server verifies.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Verification {
    /// Not at all.
    None,
    /// It generates freely, and what was proposed is compared.
    Replay,
    /// In one pass, by the log-probabilities of a prompt; this GGUF has the vocabulary of its model.
    Logprobs(PathBuf),
}
