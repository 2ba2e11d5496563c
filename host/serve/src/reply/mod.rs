//! Responses: one JSON object, or a stream of events.

pub(crate) mod context;
pub(crate) mod logprobs;
pub(crate) mod meta;
pub(crate) mod non_streaming;
pub(crate) mod objects;
pub(crate) mod stream;
pub(crate) mod tools;
