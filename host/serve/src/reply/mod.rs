//! Answers: whole, or as a stream of events.

pub(crate) mod head;
pub(crate) mod job;
pub(crate) mod logprobs;
pub(crate) mod objects;
pub(crate) mod stream;
pub(crate) mod tools;
pub(crate) mod whole;
