//! An answer to make.

use std::sync::Arc;

use crate::choices::Choices;
use crate::metrics::{Metrics, Observation};
use crate::reply::head::Head;

/// Everything an answer is made of.
pub(crate) struct Job {
    pub head: Head,
    pub choices: Choices,
    pub metrics: Arc<Metrics>,
    pub observation: Observation,
}
