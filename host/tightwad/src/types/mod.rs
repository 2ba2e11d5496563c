//! What a request is and what answers it: plain data that every other folder speaks.

mod event;
pub mod node;
mod request;

pub use event::{Event, Finish, Outcome, Report, TextLogprobs, Usage};
pub use node::{Load, ModelFacts};
pub use request::{Format, Message, Prompt, Request, Tool, ToolChoice};

/// Bytes as people compare them.
#[must_use]
pub fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
