//! Text servers as backends: llama-server, Ollama and every server with OpenAI's API.
//!
//! A text server answers whole requests. As a drafter, it generates text, which the target's vocabulary
//! splits into tokens. As a target, it verifies in one pass if it reports log-probabilities of a prompt.
//! Otherwise it verifies by replay, which is exact and as slow as the server itself.

mod body;
mod client;
mod dialect;
mod drafter;
mod error;
mod events;
#[cfg(test)]
mod fake_server;
mod logprobs;
mod replay;
mod server;
mod spec;
mod tools;

pub use dialect::Dialect;
pub use error::ConnectError;
pub use server::TextServer;
pub use spec::{TextServerSpec, Verification};
