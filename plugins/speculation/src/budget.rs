//! The time that drafting may lose against plain decoding.
//!
//! Invariant: the loss stays below [`INITIAL_LOSS_BUDGET`] single-token passes plus [`LOSS_BUDGET_RATIO`] of all
//! time. With a distant target and a known drafter, the loss may be a few round trips larger. Drafting may also risk
//! earlier gains again, up to [`MAX_CREDIT`] passes.

/// The share of all time that drafts may lose.
const LOSS_BUDGET_RATIO: f64 = 0.01;
/// The loss that is allowed at the start, in single-token passes.
const INITIAL_LOSS_BUDGET: f64 = 1.6;
/// The greatest gain that drafting may risk again, in single-token passes.
const MAX_CREDIT: f64 = 20.0;
/// The greatest gain that later requests may risk again, in single-token passes.
const MAX_CARRIED_CREDIT: f64 = 10.0;
/// The evidence from which a drafter counts as known: drafts that were verified or compared with decoded tokens.
pub(crate) const WARM_UP_DRAFTS: f64 = 5.0;

/// The time that drafting may still lose, in nanoseconds.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Budget {
    /// Time lost on drafts. Negative: time gained.
    pub(crate) lost: f64,
    spent: f64,
}

impl Budget {
    /// The loss that a later request starts with. A single-token pass takes `token_cost`.
    pub(crate) fn carried(&self, token_cost: f64) -> f64 {
        // Forgives half of a debt: every request may probe the drafters anew.
        self.lost.clamp(-MAX_CARRIED_CREDIT * token_cost, 0.5 * INITIAL_LOSS_BUDGET * token_cost)
    }

    /// Records time without a loss.
    pub(crate) fn record_time(&mut self, time: f64) {
        self.spent += time;
    }

    /// Records lost time.
    pub(crate) fn record_loss(&mut self, time: f64) {
        self.lost += time;
        self.spent += time;
    }

    /// Records the loss of a verification; negative: a gain. A single-token pass takes `token_cost`.
    pub(crate) fn record_verification(&mut self, lost: f64, token_cost: f64) {
        self.lost = (self.lost + lost).max(-MAX_CREDIT * token_cost);
    }

    /// True if the budget allows a further loss of `risk`. `evidence` is the drafter's.
    pub(crate) fn allows(&self, risk: f64, token_cost: f64, round_trip: f64, evidence: f64) -> bool {
        let network_allowance = if evidence >= WARM_UP_DRAFTS {
            2.0 * round_trip + round_trip.min(2.0 * INITIAL_LOSS_BUDGET * token_cost)
        } else {
            0.0
        };
        self.lost + risk
            <= INITIAL_LOSS_BUDGET * token_cost + LOSS_BUDGET_RATIO * self.spent + network_allowance
    }

    /// True if a probe is due that costs `risk` more than plain decoding.
    pub(crate) fn allows_probe(&self, risk: f64) -> bool {
        self.lost <= 0.25 * LOSS_BUDGET_RATIO * self.spent - risk
    }
}
