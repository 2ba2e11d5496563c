//! The shared state of a verification.

use std::sync::Arc;
use std::time::Duration;

use crate::sampling::sampler::Sampler;
use crate::scheduler::stats::Stats;
use crate::weights::Weights;

/// The state that a verification or a draft needs beside its sequence.
pub(crate) struct VerifyContext {
    pub weights: Arc<Weights>,
    pub sampler: Sampler,
    /// The tie threshold of the current pass; 0 for a pass of one row, which is the reference.
    pub tie_threshold: f32,
    /// Time from the sequence's call, or its previous step, until now.
    pub elapsed: Duration,
    /// The attributed cost of that time.
    pub cost: Duration,
    pub stats: Arc<Stats>,
}
