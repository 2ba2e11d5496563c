//! Computes the thresholds of a gate from reviewed and checked answers. Pure functions.

/// Greatest number of thresholds. More thresholds would fit the noise of one file.
const MAX_THRESHOLDS: usize = 24;

/// One question with the answers of the fleet and of the reviewer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Observation {
    /// The reviewer's mean log-probability of the fleet's tokens.
    pub mean_logprob: f64,
    /// The reviewer's log-probability of the least probable token.
    pub min_logprob: f64,
    /// True if the fleet's answer is right.
    pub fleet_right: bool,
    /// True if the reviewer's own answer is right.
    pub reviewer_right: bool,
    /// Number of tokens of the reviewer's own answer.
    pub reviewer_tokens: u32,
}

/// The limits with which a gate approves an answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Threshold {
    /// `min_mean_logprob` of `tw.gate{}`.
    pub min_mean_logprob: f64,
    /// `min_token_logprob` of `tw.gate{}`.
    pub min_token_logprob: f64,
}

impl Threshold {
    /// True if the gate approves an answer with this mean and this least log-probability.
    pub(crate) fn approves(self, mean_logprob: f64, min_logprob: f64) -> bool {
        mean_logprob >= self.min_mean_logprob && min_logprob >= self.min_token_logprob
    }
}

/// The effect of a threshold on a file of questions. The gate rejects every answer that it does not approve.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Point {
    /// The threshold.
    pub threshold: Threshold,
    /// Share of approved answers, 0 to 1.
    pub approved_share: f64,
    /// Share of right answers among all answers to the client.
    pub accuracy: f64,
    /// Share of right answers among the approved ones. 1 without approved answers.
    pub precision: f64,
    /// Tokens that the reviewer generates, as a share of those that it generates alone.
    pub decoded_share: f64,
}

/// The effect of `threshold` on `observations`.
pub(crate) fn point(observations: &[Observation], threshold: Threshold) -> Point {
    let share = |part: f64, total: f64| if total > 0.0 { part / total } else { 1.0 };
    let (mut approved, mut right, mut approved_right, mut decoded, mut reviewer_tokens) =
        (0.0, 0.0, 0.0, 0.0, 0.0);
    for observation in observations {
        let passes = threshold.approves(observation.mean_logprob, observation.min_logprob);
        let is_right = if passes { observation.fleet_right } else { observation.reviewer_right };
        approved += f64::from(u8::from(passes));
        approved_right += f64::from(u8::from(passes && observation.fleet_right));
        right += f64::from(u8::from(is_right));
        reviewer_tokens += f64::from(observation.reviewer_tokens);
        decoded += if passes { 0.0 } else { f64::from(observation.reviewer_tokens) };
    }
    let count = observations.len() as f64;
    Point {
        threshold,
        approved_share: share(approved, count),
        accuracy: share(right, count),
        precision: share(approved_right, approved),
        decoded_share: share(decoded, reviewer_tokens),
    }
}

/// The points for one `min_token_logprob`, from the strictest to the loosest `min_mean_logprob`.
pub(crate) fn curve(observations: &[Observation], min_token_logprob: f64) -> Vec<Point> {
    let mut thresholds = vec![0.0];
    thresholds.extend(quantiles(observations.iter().map(|observation| observation.mean_logprob)));
    thresholds
        .into_iter()
        .map(|min_mean_logprob| point(observations, Threshold { min_mean_logprob, min_token_logprob }))
        .collect()
}

/// Suggests the threshold that approves the most answers and keeps `min_accuracy`. Of thresholds with equally many
/// approvals, the most accurate one wins. `None`: no threshold reaches `min_accuracy`.
pub(crate) fn suggest(observations: &[Observation], min_accuracy: f64) -> Option<Point> {
    let mut limits = vec![-100.0];
    limits.extend(quantiles(observations.iter().map(|observation| observation.min_logprob)));
    let points = limits.into_iter().flat_map(|limit| curve(observations, limit));
    let accurate = points.filter(|point| point.accuracy >= min_accuracy - 1e-9);
    let order = |a: &Point, b: &Point| {
        a.approved_share.total_cmp(&b.approved_share).then(a.accuracy.total_cmp(&b.accuracy)).then_with(
            || {
                // Of equal thresholds, the strictest wins: later answers can be worse than these.
                a.threshold.min_mean_logprob.total_cmp(&b.threshold.min_mean_logprob)
            },
        )
    };
    accurate.max_by(order)
}

/// Accuracy and approved share of a suggestion on held-out questions. The threshold of each half decides about the
/// other half. `None` if one half gives no threshold.
pub(crate) fn held_out(
    observations: &[Observation],
    min_accuracy: impl Fn(&[Observation]) -> f64,
) -> Option<(f64, f64)> {
    let half = |odd: usize| -> Vec<Observation> {
        observations
            .iter()
            .enumerate()
            .filter(|(index, _)| index % 2 == odd)
            .map(|(_, observation)| *observation)
            .collect()
    };
    let (even, odd) = (half(0), half(1));
    let evaluate = |chosen: &[Observation], other: &[Observation]| {
        suggest(chosen, min_accuracy(chosen)).map(|suggestion| point(other, suggestion.threshold))
    };
    let (a, b) = (evaluate(&even, &odd)?, evaluate(&odd, &even)?);
    let count = observations.len() as f64;
    let average =
        |value: fn(&Point) -> f64| (value(&a) * odd.len() as f64 + value(&b) * even.len() as f64) / count;
    Some((average(|point| point.accuracy), average(|point| point.approved_share)))
}

/// Share of right answers, 0 to 1.
pub(crate) fn accuracy(right: impl Iterator<Item = bool>) -> f64 {
    let (mut count, mut right_count) = (0.0, 0.0);
    for is_right in right {
        count += 1.0;
        right_count += f64::from(u8::from(is_right));
    }
    if count > 0.0 { right_count / count } else { 0.0 }
}

/// Quantiles of `values`, from the highest to the lowest.
fn quantiles(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.filter(|value| value.is_finite()).collect();
    values.sort_by(|a, b| b.total_cmp(a));
    let count = values.len();
    let quantile =
        |step: usize| values.get((step * count).div_ceil(MAX_THRESHOLDS).saturating_sub(1)).copied();
    let mut quantiles: Vec<f64> = (1..=MAX_THRESHOLDS).filter_map(quantile).collect();
    quantiles.dedup();
    quantiles
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first 60 answers of the fleet are right. Their scores fall from answer to answer. The reviewer is always right.
    fn observations() -> Vec<Observation> {
        let observation = |index: u32| Observation {
            mean_logprob: -0.01 * f64::from(index),
            min_logprob: -0.1 * f64::from(index),
            fleet_right: index < 60,
            reviewer_right: true,
            reviewer_tokens: 10,
        };
        (0..100).map(observation).collect()
    }

    #[test]
    fn suggestion_approves_exactly_the_right_answers() {
        let suggestion = suggest(&observations(), 1.0).unwrap();
        assert!((0.5..=0.6).contains(&suggestion.approved_share), "{suggestion:?}");
        assert_eq!((suggestion.accuracy, suggestion.precision), (1.0, 1.0));
        assert!((suggestion.decoded_share - (1.0 - suggestion.approved_share)).abs() < 1e-9);
        let looser = suggest(&observations(), 0.9).unwrap();
        assert!(looser.approved_share > suggestion.approved_share && looser.accuracy >= 0.9, "{looser:?}");
        let (accuracy, approved_share) = held_out(&observations(), |_| 1.0).unwrap();
        assert!(accuracy > 0.95 && approved_share > 0.4, "{accuracy} {approved_share}");
    }

    #[test]
    fn threshold_zero_equals_the_reviewer_alone() {
        let strictest = curve(&observations(), 0.0)[0];
        // The first answer has the log-probability 0.
        assert!(strictest.approved_share <= 0.01 && strictest.decoded_share >= 0.99, "{strictest:?}");
        let loosest = *curve(&observations(), -100.0).last().unwrap();
        assert_eq!((loosest.approved_share, loosest.accuracy, loosest.decoded_share), (1.0, 0.6, 0.0));
    }

    #[test]
    fn inaccurate_reviewer_gives_no_threshold() {
        let mut wrong = observations();
        wrong
            .iter_mut()
            .for_each(|observation| (observation.reviewer_right, observation.fleet_right) = (false, false));
        assert_eq!(suggest(&wrong, 0.5), None);
        assert!(suggest(&[], 0.5).is_some(), "no question gives no fault");
    }
}
