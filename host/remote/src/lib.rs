//! Servers that speak text: llama-server, Ollama, and everything with OpenAI's interface. They answer
//! whole requests; they draft by text, which the target's vocabulary cuts into tokens; and they can
//! stand as a target: in one pass where they say the log-probabilities of a prompt, else by replay, which
//! is exact and no faster than the server itself.

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
