//! The share of a drafter's tokens that the target would have chosen, where it was asked.
//!
//! Invariant: an estimate is above 0 and below 1, and old evidence fades.

use crate::ballots::Score;

/// What one token leaves of the earlier evidence.
const DECAY: f64 = 0.97;
/// What is expected of a drafter that nothing is known about, ...
const PRIOR: f64 = 0.7;
/// ... and the weight of that, in tokens.
const PRIOR_TOKENS: f64 = 4.0;

/// Decaying counts of right and of all tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Accuracy {
    right: f64,
    all: f64,
}

impl Accuracy {
    /// Notes how right a ballot was.
    pub fn learn(&mut self, score: Score) {
        let tokens = std::iter::repeat_n(1.0, score.right).chain(std::iter::repeat_n(0.0, score.wrong));
        for right in tokens {
            self.right = self.right * DECAY + right;
            self.all = self.all * DECAY + 1.0;
        }
    }

    /// The chance that the next token is right when all before it were.
    #[must_use]
    pub fn share(&self) -> f64 {
        (self.right + PRIOR * PRIOR_TOKENS) / (self.all + PRIOR_TOKENS)
    }

    /// Numbers of a note.
    pub(crate) fn numbers(&self) -> [f64; 2] {
        [self.right, self.all]
    }

    /// From a note; `None` where more is right than there is.
    pub(crate) fn from_numbers([right, all]: [f64; 2]) -> Option<Self> {
        // What may ever be counted with the decay is a bound for what a note may say.
        (right >= 0.0 && right <= all && all <= 1.0 / (1.0 - DECAY)).then_some(Self { right, all })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn learns_and_forgets() {
        let mut accuracy = Accuracy::default();
        for _ in 0..20 {
            accuracy.learn(Score { right: 15, wrong: 1 });
        }
        assert!(accuracy.share() > 0.88, "{}", accuracy.share());
        for _ in 0..60 {
            accuracy.learn(Score { right: 0, wrong: 1 });
        }
        assert!(accuracy.share() < 0.3, "{}", accuracy.share());
        let [right, all] = accuracy.numbers();
        assert_eq!(Accuracy::from_numbers([right, all]), Some(accuracy));
        assert_eq!(Accuracy::from_numbers([2.0, 1.0]), None);
        assert_eq!(Accuracy::from_numbers([f64::NAN, 1.0]), None);
    }
}
