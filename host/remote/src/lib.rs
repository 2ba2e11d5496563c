//! Text servers as backends: llama-server, Ollama and every server with OpenAI's API.
//!
//! A text server answers whole requests. As a drafter, it generates text, which the target's vocabulary
//! splits into tokens. As a target, it verifies in one pass if it reports log-probabilities of a prompt.
//! Otherwise it verifies by replay, which is exact and as slow as the server itself.

mod answer_parser;
mod body;
mod client;
mod dialect;
mod drafter;
mod error;
mod events;
#[cfg(test)]
mod fake_server;
#[doc(hidden)]
pub mod fuzzing;
#[cfg(test)]
mod hostile_tests;
mod logprobs;
mod replay;
mod server;
mod spec;
mod tools;

pub use dialect::Dialect;
pub use error::ConnectError;
pub use server::TextServer;
pub use spec::{DEFAULT_FIRST_TOKEN_TIMEOUT, TextServerSpec, Verification};
