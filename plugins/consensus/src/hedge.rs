//! What each drafter's word is worth, by the tokens that the target chose itself.
//!
//! Invariant: weights are positive and add up to 1 over all drafters, present or not.
//!
//! The weights are those of Hedge (Freund and Schapire, "A decision-theoretic generalization of on-line
//! learning and an application to boosting", JCSS 55, 1997): each is multiplied by `exp(-eta * loss)`. Then
//! every drafter gets a fixed share of all weight (Herbster and Warmuth, "Tracking the best expert", Machine
//! Learning 32, 1998): the best drafter is followed when it is another one than before, and one that was
//! bad recovers in a number of rounds that does not grow with how long it was bad.

/// How fast losses count: one right and one wrong drafter part by a factor of 1.6 a round.
const ETA: f64 = 0.5;
/// The share of all weight that is dealt out evenly. With it, small differences in loss do not make the
/// best drafter the only one that counts.
const SHARE: f64 = 0.05;
/// What not coming costs: nothing is known, so half.
pub const ABSENT: f64 = 0.5;

/// Weights of all drafters.
#[derive(Debug, Clone, PartialEq)]
pub struct Weights(Vec<f64>);

impl Weights {
    /// Equal weights.
    #[must_use]
    pub fn new(drafters: usize) -> Self {
        Self(vec![1.0 / drafters.max(1) as f64; drafters])
    }

    /// The weight of `drafter`.
    #[must_use]
    pub fn of(&self, drafter: usize) -> f64 {
        self.0.get(drafter).copied().unwrap_or(0.0)
    }

    /// Learns from one comparison: each drafter's loss from 0 to 1. `None`: it came but could not be
    /// compared, and loses as much as the others on average.
    pub fn learn(&mut self, losses: &[Option<f64>]) {
        let known = || losses.iter().flatten();
        let count = known().count();
        if count == 0 || losses.len() != self.0.len() {
            return;
        }
        let mean = known().sum::<f64>() / count as f64;
        for (weight, loss) in self.0.iter_mut().zip(losses) {
            *weight *= (-ETA * loss.unwrap_or(mean)).exp();
        }
        let even = SHARE / self.0.len() as f64;
        let total: f64 = self.0.iter().sum();
        for weight in &mut self.0 {
            *weight = (1.0 - SHARE) * *weight / total + even;
        }
    }

    /// Numbers of a note.
    pub(crate) fn numbers(&self) -> &[f64] {
        &self.0
    }

    /// From a note; `None` where that makes no weights.
    pub(crate) fn from_numbers(numbers: &[f64]) -> Option<Self> {
        let total: f64 = numbers.iter().sum();
        let fits = numbers.iter().all(|weight| *weight > 0.0) && total.is_finite();
        fits.then(|| Self(numbers.iter().map(|weight| weight / total).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(rounds: usize, weights: &mut Weights, losses: &[Option<f64>]) {
        for _ in 0..rounds {
            weights.learn(losses);
        }
        let total: f64 = weights.0.iter().sum();
        assert!((total - 1.0).abs() < 1e-9, "{total}");
    }

    #[test]
    fn a_liar_loses_its_word_and_wins_it_back() {
        let mut weights = Weights::new(3);
        after(12, &mut weights, &[Some(0.1), Some(0.1), Some(1.0)]);
        assert!(weights.of(2) < 0.1 && weights.of(0) + weights.of(1) > 0.9, "{weights:?}");
        // However long it lied.
        after(10_000, &mut weights, &[Some(0.1), Some(0.1), Some(1.0)]);
        assert!(weights.of(2) > 0.01);
        after(12, &mut weights, &[Some(1.0), Some(1.0), Some(0.0)]);
        assert!(weights.of(2) > 0.75, "{weights:?}");
    }

    #[test]
    fn small_differences_make_no_dictator() {
        let mut weights = Weights::new(3);
        after(1000, &mut weights, &[Some(0.15), Some(0.2), Some(0.2)]);
        assert!(weights.of(0) < 0.75 && weights.of(0) > weights.of(1), "{weights:?}");
    }

    #[test]
    fn a_dead_drafter_does_not_block_the_threshold_for_good() {
        let mut weights = Weights::new(3);
        after(12, &mut weights, &[Some(0.1), Some(0.1), Some(ABSENT)]);
        assert!(weights.of(0) + weights.of(1) > 0.75, "{weights:?}");
    }

    #[test]
    fn who_could_not_be_compared_keeps_its_place() {
        let mut weights = Weights::new(2);
        after(5, &mut weights, &[Some(0.6), None]);
        assert!((weights.of(0) - 0.5).abs() < 1e-9);
        after(5, &mut weights, &[None, None]);
        after(5, &mut weights, &[Some(1.0)]);
        assert!((weights.of(0) - 0.5).abs() < 1e-9, "losses of other drafters change nothing");
    }

    #[test]
    fn nonsense_makes_no_weights() {
        for numbers in [&[0.0, 0.0][..], &[-1.0, 2.0], &[f64::NAN, 1.0], &[f64::INFINITY, 1.0]] {
            assert_eq!(Weights::from_numbers(numbers), None, "{numbers:?}");
        }
        assert_eq!(Weights::from_numbers(&[3.0, 1.0]).map(|weights| weights.of(0)), Some(0.75));
    }
}
