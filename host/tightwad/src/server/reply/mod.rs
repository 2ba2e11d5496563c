//! Answers: whole, or as a stream of events.

mod logprobs;
mod objects;
mod stream;
mod tools;
mod whole;

use std::sync::Arc;

pub(super) use stream::stream;
pub(super) use whole::whole;

use super::Metrics;
use super::body::Shape;
use super::choices::Choices;
use super::metrics::Observation;

/// What all objects of one answer share.
pub(super) struct Head {
    pub id: String,
    pub created: u64,
    pub model: String,
    pub shape: Shape,
    /// Tool calls are looked for in the text.
    pub tools: bool,
    /// A stream ends with a chunk of usage.
    pub usage: bool,
}

/// Everything an answer is made of.
pub(super) struct Job {
    pub head: Head,
    pub choices: Choices,
    pub metrics: Arc<Metrics>,
    pub observation: Observation,
}
