//! What a request is and what answers it: plain data that every other folder speaks.

mod event;
mod request;

pub use event::{Event, Finish, Outcome, Report, TextLogprobs, Usage};
pub use request::{Format, Message, Prompt, Request, Tool, ToolChoice};
