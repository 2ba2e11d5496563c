//! Statistics of the reviewer's scores of an answer.

use tightwad_plugin_sdk::TokenScore;

/// A logarithm further above 0 is not a probability's. Below this, it is rounding.
const ROUNDING: f32 = 1e-3;

/// The log-probability, at most 0. Negative infinity if the score is not a logarithm of a probability.
fn clean_logprob(score: &TokenScore) -> f64 {
    if score.logprob <= ROUNDING { f64::from(score.logprob.min(0.0)) } else { f64::NEG_INFINITY }
}

/// The mean log-probability per token. Negative infinity for no tokens.
#[must_use]
pub fn mean(scores: &[TokenScore]) -> f64 {
    if scores.is_empty() {
        return f64::NEG_INFINITY;
    }
    scores.iter().map(clean_logprob).sum::<f64>() / scores.len() as f64
}

/// The index of the first token below `min_logprob`.
#[must_use]
pub fn first_below(scores: &[TokenScore], min_logprob: f64) -> Option<usize> {
    scores.iter().position(|score| clean_logprob(score) < min_logprob)
}

/// The length of the longest prefix with a mean of at least `min_mean`.
#[must_use]
pub fn longest_prefix(scores: &[TokenScore], min_mean: f64) -> usize {
    let sums = scores.iter().scan(0.0, |sum, score| {
        *sum += clean_logprob(score);
        Some(*sum)
    });
    let enough = |(index, sum): &(usize, f64)| sum / (index + 1) as f64 >= min_mean;
    sums.enumerate().filter(enough).last().map_or(0, |(index, _)| index + 1)
}

/// The index of the least probable token; of several, the first.
#[must_use]
pub fn weakest(scores: &[TokenScore]) -> usize {
    let logprobs = scores.iter().map(clean_logprob).enumerate();
    logprobs.min_by(|(_, one), (_, other)| one.total_cmp(other)).map_or(0, |(index, _)| index)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scores(logprobs: &[f32]) -> Vec<TokenScore> {
        logprobs.iter().map(|logprob| TokenScore { logprob: *logprob, rank: 0 }).collect()
    }

    #[test]
    fn mean_is_over_all_tokens() {
        assert_eq!(mean(&scores(&[-1.0, -2.0, -6.0])), -3.0);
        assert_eq!(mean(&[]), f64::NEG_INFINITY);
    }

    #[test]
    fn invalid_logprob_counts_as_negative_infinity() {
        for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 5.0, 0.1] {
            let two = scores(&[-0.5, odd]);
            assert_eq!(mean(&two), f64::NEG_INFINITY, "{odd}");
            assert_eq!(first_below(&two, -100.0), Some(1), "{odd}");
            assert_eq!(longest_prefix(&two, -100.0), 1, "{odd}");
            assert_eq!(weakest(&two), 1, "{odd}");
        }
        assert_eq!(mean(&scores(&[1e-6])), 0.0, "rounding");
    }

    #[test]
    fn token_at_the_minimum_is_not_below_it() {
        assert_eq!(first_below(&scores(&[-1.0, -6.0]), -6.0), None);
        assert_eq!(first_below(&scores(&[-1.0, -6.5, -7.0]), -6.0), Some(1));
    }

    #[test]
    fn longest_prefix_may_contain_worse_prefixes() {
        // Means: -2, -1, -0.67, -1.5, -1.8.
        let some = scores(&[-2.0, 0.0, 0.0, -4.0, -3.0]);
        assert_eq!(longest_prefix(&some, -1.0), 3);
        assert_eq!(longest_prefix(&some, -1.5), 4);
        assert_eq!(longest_prefix(&some, -1.8), 5);
        assert_eq!(longest_prefix(&some, -0.1), 0);
        assert_eq!(longest_prefix(&[], -1.0), 0);
    }

    #[test]
    fn weakest_token_is_the_first_of_equals() {
        assert_eq!(weakest(&scores(&[-0.1, -3.0, -0.2, -3.0])), 1);
        assert_eq!(weakest(&[]), 0);
    }
}
