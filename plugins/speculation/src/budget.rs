//! The time that drafting may lose against plain decoding.
//!
//! Invariant: the loss stays below [`START`] single-token passes plus [`SHARE`] of all time spent. Where the
//! target is far away and a drafter is known, the loss may be a few round trips larger. Earlier gains, up to
//! [`CREDIT`] passes, may be risked again.

/// The share of all time that may be lost on drafts.
const SHARE: f64 = 0.01;
/// What may be lost at the start, in single-token passes.
const START: f64 = 1.6;
/// The most gain that is remembered to be risked again, in single-token passes.
const CREDIT: f64 = 20.0;
/// What of it later requests inherit.
const INHERITED: f64 = 10.0;
/// Verified drafts, or drafts compared with what was decoded, after which a drafter is known.
pub(crate) const ENOUGH_EVIDENCE: f64 = 5.0;

/// The time that drafting may lose, in nanoseconds.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Budget {
    /// Time lost on drafts; below 0: gained.
    pub(crate) lost: f64,
    spent: f64,
}

impl Budget {
    /// The loss that a later request inherits, where a single-token pass takes `one`.
    pub(crate) fn inheritance(&self, one: f64) -> f64 {
        // Half of a debt is forgiven: every request may find out anew.
        self.lost.clamp(-INHERITED * one, 0.5 * START * one)
    }

    /// Notes time of plain decoding.
    pub(crate) fn spend(&mut self, time: f64) {
        self.spent += time;
    }

    /// Notes time that brought nothing.
    pub(crate) fn lose(&mut self, time: f64) {
        self.lost += time;
        self.spent += time;
    }

    /// Notes the loss of a verification, below 0 a gain, where a single-token pass takes `one`.
    pub(crate) fn settle(&mut self, lost: f64, one: f64) {
        self.lost = (self.lost + lost).max(-CREDIT * one);
    }

    /// True when a loss of `risk` more is allowed. The round trip to the target takes `away`.
    pub(crate) fn allows(&self, risk: f64, one: f64, away: f64, evidence: f64) -> bool {
        let journey =
            if evidence >= ENOUGH_EVIDENCE { 2.0 * away + away.min(2.0 * START * one) } else { 0.0 };
        self.lost + risk <= START * one + SHARE * self.spent + journey
    }

    /// True when a probe that costs `risk` more than plain decoding is due.
    pub(crate) fn allows_probe(&self, risk: f64) -> bool {
        self.lost <= 0.25 * SHARE * self.spent - risk
    }
}
