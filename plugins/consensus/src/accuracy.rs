//! The share of a drafter's tokens that agree with the target's own tokens.
//!
//! Invariant: an estimate is above 0 and below 1, and old evidence fades.

use crate::ballots::Score;

/// The weight that one token leaves to the earlier evidence.
const DECAY: f64 = 0.97;
/// The estimate for an unknown drafter.
const PRIOR_ACCURACY: f64 = 0.7;
/// The weight of this estimate, in tokens.
const PRIOR_TOKENS: f64 = 4.0;

/// Decaying counts of right tokens and of all tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Accuracy {
    right: f64,
    total: f64,
}

impl Accuracy {
    /// Records the score of a ballot.
    pub fn learn(&mut self, score: Score) {
        let tokens = std::iter::repeat_n(1.0, score.right).chain(std::iter::repeat_n(0.0, score.wrong));
        for right in tokens {
            self.right = self.right * DECAY + right;
            self.total = self.total * DECAY + 1.0;
        }
    }

    /// The chance that the next token is right after all tokens before it.
    #[must_use]
    pub fn estimate(&self) -> f64 {
        (self.right + PRIOR_ACCURACY * PRIOR_TOKENS) / (self.total + PRIOR_TOKENS)
    }

    /// Numbers of the saved state.
    pub(crate) fn saved_numbers(&self) -> [f64; 2] {
        [self.right, self.total]
    }

    /// Restores the saved state. `None`: more tokens are right than there are, or there are too many.
    pub(crate) fn from_numbers([right, total]: [f64; 2]) -> Option<Self> {
        // With the decay, a count never exceeds this bound.
        (right >= 0.0 && right <= total && total <= 1.0 / (1.0 - DECAY)).then_some(Self { right, total })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accuracy_learns_and_forgets() {
        let mut accuracy = Accuracy::default();
        for _ in 0..20 {
            accuracy.learn(Score { right: 15, wrong: 1 });
        }
        assert!(accuracy.estimate() > 0.88, "{}", accuracy.estimate());
        for _ in 0..60 {
            accuracy.learn(Score { right: 0, wrong: 1 });
        }
        assert!(accuracy.estimate() < 0.3, "{}", accuracy.estimate());
        let [right, total] = accuracy.saved_numbers();
        assert_eq!(Accuracy::from_numbers([right, total]), Some(accuracy));
        assert_eq!(Accuracy::from_numbers([2.0, 1.0]), None);
        assert_eq!(Accuracy::from_numbers([f64::NAN, 1.0]), None);
    }
}
