//! The weights of the drafters, by their agreement with the target's own tokens.
//!
//! Invariant: weights are positive and add up to 1 over all drafters, absent ones included.
//!
//! The weights are those of Hedge (Freund and Schapire, "A decision-theoretic generalization of on-line learning and
//! an application to boosting", JCSS 55, 1997): each is multiplied by `exp(-eta * loss)`. Then every drafter gets a
//! fixed share of all weight (Herbster and Warmuth, "Tracking the best expert", Machine Learning 32, 1998). So the
//! weights follow a change of the best drafter. The number of rounds in which a drafter recovers does not grow with
//! the length of its bad period.

/// Eta. In one round, a right and a wrong drafter part by a factor of 1.6.
const LEARNING_RATE: f64 = 0.5;
/// The share of all weight that is dealt out evenly. It keeps small differences in loss from giving all weight to the
/// best drafter.
const FIXED_SHARE: f64 = 0.05;
/// The loss of a drafter that missed the race. Its tokens are unknown, so half.
pub const ABSENT_LOSS: f64 = 0.5;

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
    pub fn get(&self, drafter: usize) -> f64 {
        self.0.get(drafter).copied().unwrap_or(0.0)
    }

    /// Updates the weights by one comparison: each drafter's loss, 0 to 1. `None`: the drafter's ballot could not be
    /// compared; its loss is the mean of the others.
    pub fn learn(&mut self, losses: &[Option<f64>]) {
        let known = || losses.iter().flatten();
        let count = known().count();
        if count == 0 || losses.len() != self.0.len() {
            return;
        }
        let mean = known().sum::<f64>() / count as f64;
        for (weight, loss) in self.0.iter_mut().zip(losses) {
            *weight *= (-LEARNING_RATE * loss.unwrap_or(mean)).exp();
        }
        let even = FIXED_SHARE / self.0.len() as f64;
        let total: f64 = self.0.iter().sum();
        for weight in &mut self.0 {
            *weight = (1.0 - FIXED_SHARE) * *weight / total + even;
        }
    }

    /// Numbers of the saved state.
    pub(crate) fn saved_numbers(&self) -> &[f64] {
        &self.0
    }

    /// Restores the saved state. `None`: the numbers are not weights.
    pub(crate) fn from_numbers(numbers: &[f64]) -> Option<Self> {
        let total: f64 = numbers.iter().sum();
        let fits = numbers.iter().all(|weight| *weight > 0.0) && total.is_finite();
        fits.then(|| Self(numbers.iter().map(|weight| weight / total).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learn_repeatedly(rounds: usize, weights: &mut Weights, losses: &[Option<f64>]) {
        for _ in 0..rounds {
            weights.learn(losses);
        }
        let total: f64 = weights.0.iter().sum();
        assert!((total - 1.0).abs() < 1e-9, "{total}");
    }

    #[test]
    fn wrong_drafter_loses_its_weight_and_recovers() {
        let mut weights = Weights::new(3);
        learn_repeatedly(12, &mut weights, &[Some(0.1), Some(0.1), Some(1.0)]);
        assert!(weights.get(2) < 0.1 && weights.get(0) + weights.get(1) > 0.9, "{weights:?}");
        // However long it was wrong.
        learn_repeatedly(10_000, &mut weights, &[Some(0.1), Some(0.1), Some(1.0)]);
        assert!(weights.get(2) > 0.01);
        learn_repeatedly(12, &mut weights, &[Some(1.0), Some(1.0), Some(0.0)]);
        assert!(weights.get(2) > 0.75, "{weights:?}");
    }

    #[test]
    fn small_differences_leave_weight_to_every_drafter() {
        let mut weights = Weights::new(3);
        learn_repeatedly(1000, &mut weights, &[Some(0.15), Some(0.2), Some(0.2)]);
        assert!(weights.get(0) < 0.75 && weights.get(0) > weights.get(1), "{weights:?}");
    }

    #[test]
    fn missing_drafter_does_not_block_the_threshold_for_good() {
        let mut weights = Weights::new(3);
        learn_repeatedly(12, &mut weights, &[Some(0.1), Some(0.1), Some(ABSENT_LOSS)]);
        assert!(weights.get(0) + weights.get(1) > 0.75, "{weights:?}");
    }

    #[test]
    fn drafter_without_a_comparison_keeps_its_weight() {
        let mut weights = Weights::new(2);
        learn_repeatedly(5, &mut weights, &[Some(0.6), None]);
        assert!((weights.get(0) - 0.5).abs() < 1e-9);
        learn_repeatedly(5, &mut weights, &[None, None]);
        learn_repeatedly(5, &mut weights, &[Some(1.0)]);
        assert!((weights.get(0) - 0.5).abs() < 1e-9, "a list of another length changes nothing");
    }

    #[test]
    fn nonsense_is_not_restored() {
        for numbers in [&[0.0, 0.0][..], &[-1.0, 2.0], &[f64::NAN, 1.0], &[f64::INFINITY, 1.0]] {
            assert_eq!(Weights::from_numbers(numbers), None, "{numbers:?}");
        }
        assert_eq!(Weights::from_numbers(&[3.0, 1.0]).map(|weights| weights.get(0)), Some(0.75));
    }
}
