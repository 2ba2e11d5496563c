//! How often a drafter's tokens are accepted.
//!
//! Invariant: every estimate is in 0..=1, and old evidence fades.

/// What one rejected or accepted token leaves of the earlier evidence.
const DECAY: f64 = 0.98;
/// Weight of the prior, in tokens. With all evidence against it, a drafter has 0.8 times this part of
/// 1 / (1 - `DECAY`) left: less than the margin that a draft must promise, so that it is not asked again where a
/// row is measured to cost nothing.
const PRIOR: f64 = 1.5;
/// Upper bounds of the confidence buckets.
const BOUNDS: [f32; 5] = [0.5, 0.7, 0.82, 0.9, 0.95];
/// Positions told apart; later ones share the last.
const POSITIONS: usize = 16;

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
        (self.hits + PRIOR * prior) / (self.trials + PRIOR)
    }
}

/// The acceptance of one drafter, by position in the draft and by the drafter's confidence.
#[derive(Debug, Clone, Default)]
pub struct Acceptance {
    positions: [Counter; POSITIONS],
    buckets: [Counter; BOUNDS.len() + 1],
}

impl Acceptance {
    /// Notes the outcome of a verified draft: proposals after the first rejected one say nothing.
    pub fn observe(&mut self, probabilities: &[f32], accepted: usize) {
        for (position, probability) in probabilities.iter().enumerate().take(accepted + 1) {
            let hit = position < accepted;
            self.positions[position.min(POSITIONS - 1)].observe(hit);
            self.buckets[bucket(*probability)].observe(hit);
        }
    }

    /// How much is known, in verified drafts.
    #[must_use]
    pub fn evidence(&self) -> f64 {
        self.positions[0].trials
    }

    /// Numbers of a note.
    pub(crate) const NUMBERS: usize = 2 * (POSITIONS + BOUNDS.len() + 1);

    pub(crate) fn numbers(&self) -> Vec<f64> {
        let all = self.positions.iter().chain(&self.buckets);
        all.flat_map(|counter| [counter.hits, counter.trials]).collect()
    }

    /// All of it counts on, so that a drafter that was always wrong begins below the margin.
    pub(crate) fn set_numbers(&mut self, numbers: &[f64]) {
        let all = self.positions.iter_mut().chain(&mut self.buckets);
        for (counter, pair) in all.zip(numbers.chunks_exact(2)) {
            *counter = Counter { hits: pair[0], trials: pair[1] };
        }
    }

    /// The chance that `position` is accepted when all before it were, before anything is drafted.
    #[must_use]
    pub fn at(&self, position: usize) -> f64 {
        let last = position.min(POSITIONS - 1);
        self.positions[..=last].iter().fold(0.8, |prior, counter| counter.estimate(prior))
    }

    /// The chance that a token of this confidence is accepted when all before it were.
    #[must_use]
    pub fn given(&self, probability: f32) -> f64 {
        let prior = f64::from(probability.clamp(0.3, 0.98));
        self.buckets[bucket(probability)].estimate(prior)
    }
}

fn bucket(probability: f32) -> usize {
    BOUNDS.iter().position(|bound| probability < *bound).unwrap_or(BOUNDS.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn learns_both_ways_by_confidence() {
        let mut acceptance = Acceptance::default();
        for _ in 0..40 {
            acceptance.observe(&[0.95, 0.4], 1);
        }
        assert!(acceptance.given(0.95) > 0.9);
        assert!(acceptance.given(0.4) < 0.1);
        assert!(acceptance.at(0) > 0.9 && acceptance.at(1) < 0.1);
    }
}
