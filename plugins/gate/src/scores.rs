//! What the reviewer's probabilities say about an answer.

use tightwad_plugin_sdk::TokenScore;

/// More than this above 0 is no logarithm of a probability; below, it is rounding.
const ROUNDING: f32 = 1e-3;

/// A score as a number that compares: at most 0, and the least there is where it is no logarithm of a
/// probability.
fn worth(score: &TokenScore) -> f64 {
    if score.logprob <= ROUNDING { f64::from(score.logprob.min(0.0)) } else { f64::NEG_INFINITY }
}

/// The mean log-probability of a token; of no tokens, the least there is.
#[must_use]
pub fn mean(scores: &[TokenScore]) -> f64 {
    if scores.is_empty() {
        return f64::NEG_INFINITY;
    }
    scores.iter().map(worth).sum::<f64>() / scores.len() as f64
}

/// The place of the first token below `floor`.
#[must_use]
pub fn first_below(scores: &[TokenScore], floor: f64) -> Option<usize> {
    scores.iter().position(|score| worth(score) < floor)
}

/// The length of the longest beginning with a mean of at least `least`.
#[must_use]
pub fn longest(scores: &[TokenScore], least: f64) -> usize {
    let sums = scores.iter().scan(0.0, |sum, score| {
        *sum += worth(score);
        Some(*sum)
    });
    let enough = |(place, sum): &(usize, f64)| sum / (place + 1) as f64 >= least;
    sums.enumerate().filter(enough).last().map_or(0, |(place, _)| place + 1)
}

/// The place of the least probable token; of several, the first.
#[must_use]
pub fn weakest(scores: &[TokenScore]) -> usize {
    let worths = scores.iter().map(worth).enumerate();
    worths.min_by(|(_, one), (_, other)| one.total_cmp(other)).map_or(0, |(place, _)| place)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scores(logprobs: &[f32]) -> Vec<TokenScore> {
        logprobs.iter().map(|logprob| TokenScore { logprob: *logprob, rank: 0 }).collect()
    }

    #[test]
    fn a_mean_is_of_all_tokens() {
        assert_eq!(mean(&scores(&[-1.0, -2.0, -6.0])), -3.0);
        assert_eq!(mean(&[]), f64::NEG_INFINITY);
    }

    #[test]
    fn what_is_no_probability_is_worth_nothing() {
        for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 5.0, 0.1] {
            let two = scores(&[-0.5, odd]);
            assert_eq!(mean(&two), f64::NEG_INFINITY, "{odd}");
            assert_eq!(first_below(&two, -100.0), Some(1), "{odd}");
            assert_eq!(longest(&two, -100.0), 1, "{odd}");
            assert_eq!(weakest(&two), 1, "{odd}");
        }
        assert_eq!(mean(&scores(&[1e-6])), 0.0, "rounding");
    }

    #[test]
    fn the_floor_itself_is_not_below_it() {
        assert_eq!(first_below(&scores(&[-1.0, -6.0]), -6.0), None);
        assert_eq!(first_below(&scores(&[-1.0, -6.5, -7.0]), -6.0), Some(1));
    }

    #[test]
    fn the_longest_beginning_may_have_worse_ones_in_it() {
        // Means: -2, -1, -0.67, -1.5, -1.8.
        let some = scores(&[-2.0, 0.0, 0.0, -4.0, -3.0]);
        assert_eq!(longest(&some, -1.0), 3);
        assert_eq!(longest(&some, -1.5), 4);
        assert_eq!(longest(&some, -1.8), 5);
        assert_eq!(longest(&some, -0.1), 0);
        assert_eq!(longest(&[], -1.0), 0);
    }

    #[test]
    fn the_weakest_is_the_first_of_them() {
        assert_eq!(weakest(&scores(&[-0.1, -3.0, -0.2, -3.0])), 1);
        assert_eq!(weakest(&[]), 0);
    }
}
