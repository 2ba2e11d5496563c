//! The rate at which the target accepts a drafter's tokens.
//!
//! Invariant: every estimate is in 0..=1, and old evidence fades.

/// The weight that one token leaves to the earlier evidence.
const DECAY: f64 = 0.98;
/// The weight of the prior, in tokens. A drafter with all evidence against it keeps an acceptance of 0.8 ×
/// `PRIOR_TOKENS` × (1 - `DECAY`). That is less than the minimal gain of a draft, so the controller does not ask the
/// drafter again where a row measures as free.
const PRIOR_TOKENS: f64 = 1.5;
/// Upper bounds of the confidence buckets.
const CONFIDENCE_BOUNDS: [f32; 5] = [0.5, 0.7, 0.82, 0.9, 0.95];
/// Positions with a counter of their own. Later positions share the last one.
const MAX_POSITIONS: usize = 16;

/// Decaying counts of trials and hits.
#[derive(Debug, Clone, Copy, Default)]
struct Counter {
    hits: f64,
    trials: f64,
}

impl Counter {
    fn observe(&mut self, hit: bool) {
        self.hits = self.hits * DECAY + f64::from(u8::from(hit));
        self.trials = self.trials * DECAY + 1.0;
    }

    fn estimate(&self, prior: f64) -> f64 {
        (self.hits + PRIOR_TOKENS * prior) / (self.trials + PRIOR_TOKENS)
    }
}

/// The acceptance of one drafter, by position in the draft and by the drafter's confidence.
#[derive(Debug, Clone, Default)]
pub struct Acceptance {
    positions: [Counter; MAX_POSITIONS],
    buckets: [Counter; CONFIDENCE_BOUNDS.len() + 1],
}

impl Acceptance {
    /// Records the outcome of a verified draft. Proposals after the first rejected one are no evidence.
    pub fn observe(&mut self, probabilities: &[f32], accepted: usize) {
        for (position, probability) in probabilities.iter().enumerate().take(accepted + 1) {
            let hit = position < accepted;
            self.positions[position.min(MAX_POSITIONS - 1)].observe(hit);
            self.buckets[bucket(*probability)].observe(hit);
        }
    }

    /// The amount of evidence, in verified drafts.
    #[must_use]
    pub fn evidence(&self) -> f64 {
        self.positions[0].trials
    }

    /// Numbers of the saved state.
    pub(crate) const NUMBER_COUNT: usize = 2 * (MAX_POSITIONS + CONFIDENCE_BOUNDS.len() + 1);

    pub(crate) fn saved_numbers(&self) -> Vec<f64> {
        let all = self.positions.iter().chain(&self.buckets);
        all.flat_map(|counter| [counter.hits, counter.trials]).collect()
    }

    /// Restores the saved state at its full weight: a drafter that was always wrong begins below the minimal gain.
    pub(crate) fn restore(&mut self, numbers: &[f64]) {
        let all = self.positions.iter_mut().chain(&mut self.buckets);
        for (counter, pair) in all.zip(numbers.chunks_exact(2)) {
            *counter = Counter { hits: pair[0], trials: pair[1] };
        }
    }

    /// The chance that the target accepts the token at `position` after all tokens before it, before anything is
    /// drafted.
    #[must_use]
    pub fn at_position(&self, position: usize) -> f64 {
        let last = position.min(MAX_POSITIONS - 1);
        self.positions[..=last].iter().fold(0.8, |prior, counter| counter.estimate(prior))
    }

    /// The chance that the target accepts a token of this confidence after all tokens before it.
    #[must_use]
    pub fn at_confidence(&self, probability: f32) -> f64 {
        let prior = f64::from(probability.clamp(0.3, 0.98));
        self.buckets[bucket(probability)].estimate(prior)
    }
}

fn bucket(probability: f32) -> usize {
    CONFIDENCE_BOUNDS.iter().position(|bound| probability < *bound).unwrap_or(CONFIDENCE_BOUNDS.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acceptance_learns_by_confidence_and_by_position() {
        let mut acceptance = Acceptance::default();
        for _ in 0..40 {
            acceptance.observe(&[0.95, 0.4], 1);
        }
        assert!(acceptance.at_confidence(0.95) > 0.9);
        assert!(acceptance.at_confidence(0.4) < 0.1);
        assert!(acceptance.at_position(0) > 0.9 && acceptance.at_position(1) < 0.1);
    }
}
