//! The estimates of one drafter.

use crate::acceptance::Acceptance;
use crate::cost::DraftCost;

/// The estimates of one drafter.
#[derive(Debug, Clone)]
pub(crate) struct Drafter {
    pub(crate) acceptance: Acceptance,
    pub(crate) draft_cost: DraftCost,
    pub(crate) overlaps: bool,
    /// Nanoseconds that its first draft takes in addition.
    pub(crate) startup: f64,
    /// Its drafts take next to no time.
    pub(crate) is_free: bool,
    /// True if it was never opened, or if it failed.
    pub(crate) unavailable: bool,
    /// Rows per token of depth. More than one if several paths are verified together.
    pub(crate) rows_per_depth: f64,
    /// Tokens since the first of its drafts without a proposal worth verifying.
    pub(crate) refused_tokens: u32,
    /// Overconfident refusals in this time.
    pub(crate) overconfident_refusals: u32,
}

impl Drafter {
    /// True if a draft takes time.
    pub(crate) fn takes_time(&self) -> bool {
        !self.is_free && !self.unavailable
    }
}
