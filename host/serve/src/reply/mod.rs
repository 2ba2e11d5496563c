//! Answers: whole, or as a stream of events.

pub(crate) mod logprobs;
pub(crate) mod objects;
pub(crate) mod stream;
pub(crate) mod tools;
pub(crate) mod whole;

use std::sync::Arc;

use crate::body::parsed::Shape;
use crate::choices::Choices;
use crate::metrics::{Metrics, Observation};

/// What all objects of one answer share.
pub(crate) struct Head {
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
pub(crate) struct Job {
    pub head: Head,
    pub choices: Choices,
    pub metrics: Arc<Metrics>,
    pub observation: Observation,
}
