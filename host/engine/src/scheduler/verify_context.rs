//! What the rows of a pass are judged with.

use std::sync::Arc;
use std::time::Duration;

use crate::sampling::choice::Picker;
use crate::scheduler::stats::Stats;
use crate::weights::Weights;

/// What judging a row needs beside the sequence.
pub(crate) struct Judge {
    pub weights: Arc<Weights>,
    pub picker: Picker,
    /// Of the current pass: 0 for a pass of one row, which is the reference itself.
    pub tie_threshold: f32,
    /// Time from the call of the sequence that is judged until now.
    pub took: Duration,
    /// What that time costs it.
    pub cost: Duration,
    pub stats: Arc<Stats>,
}
