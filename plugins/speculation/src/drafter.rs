//! Estimates of one drafter.

use crate::acceptance::Acceptance;
use crate::cost::Drafting;

/// Estimates of one drafter.
#[derive(Debug, Clone)]
pub(crate) struct Drafter {
    pub(crate) acceptance: Acceptance,
    pub(crate) drafting: Drafting,
    pub(crate) overlaps: bool,
    /// Still to be paid with the first proposal.
    pub(crate) startup: f64,
    pub(crate) free: bool,
    /// It is not there, or broke.
    pub(crate) gone: bool,
    /// Rows that verifying one more token takes: more than one where several paths are verified.
    pub(crate) spread: f64,
    /// Tokens since none of its proposals was worth verifying.
    pub(crate) refused: u32,
    /// Refusals since then in which it was sure of what it proposed, and should not have been.
    pub(crate) doubted: u32,
}

impl Drafter {
    /// True where asking it takes time.
    pub(crate) fn costs(&self) -> bool {
        !self.free && !self.gone
    }
}
