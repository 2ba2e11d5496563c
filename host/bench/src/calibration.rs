//! From answers that were reviewed and checked to a threshold: pure, so that it can be tested.

/// Thresholds that are looked at, at most: more would only fit one file's noise.
const STEPS: usize = 24;

/// One question, answered by the fleet and by the reviewer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Observation {
    /// The reviewer's mean log-probability of the fleet's tokens.
    pub mean: f64,
    /// That of the least probable one.
    pub weakest: f64,
    /// The fleet's answer is right.
    pub fleet_right: bool,
    /// The reviewer's own answer is right.
    pub own_right: bool,
    /// Tokens of the reviewer's own answer.
    pub own_tokens: u32,
}

/// What the gate lets pass.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Threshold {
    /// `approve` of `tw.gate{}`.
    pub approve: f64,
    /// `floor` of `tw.gate{}`.
    pub floor: f64,
}

impl Threshold {
    /// Whether an answer with this mean and this least log-probability passes.
    pub(crate) fn approves(self, mean: f64, weakest: f64) -> bool {
        mean >= self.approve && weakest >= self.floor
    }
}

/// What a threshold does to a file of questions, where everything that is not approved is rejected.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Point {
    /// The threshold.
    pub threshold: Threshold,
    /// The share of answers approved.
    pub approved: f64,
    /// The share of right answers among all that go to the client.
    pub accuracy: f64,
    /// The share of right answers among those approved; 1 where there are none.
    pub precision: f64,
    /// The reviewer's decoded tokens, as a share of what it decodes alone.
    pub decoded: f64,
}

/// What `threshold` does to `seen`.
pub(crate) fn point(seen: &[Observation], threshold: Threshold) -> Point {
    let share = |part: f64, all: f64| if all > 0.0 { part / all } else { 1.0 };
    let (mut approved, mut right, mut good, mut decoded, mut alone) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for one in seen {
        let passes = threshold.approves(one.mean, one.weakest);
        let is_right = if passes { one.fleet_right } else { one.own_right };
        approved += f64::from(u8::from(passes));
        good += f64::from(u8::from(passes && one.fleet_right));
        right += f64::from(u8::from(is_right));
        alone += f64::from(one.own_tokens);
        decoded += if passes { 0.0 } else { f64::from(one.own_tokens) };
    }
    let all = seen.len() as f64;
    Point {
        threshold,
        approved: share(approved, all),
        accuracy: share(right, all),
        precision: share(good, approved),
        decoded: share(decoded, alone),
    }
}

/// The curve of one floor, from approving nothing to approving everything above it.
pub(crate) fn curve(seen: &[Observation], floor: f64) -> Vec<Point> {
    let mut approve = vec![0.0];
    approve.extend(steps(seen.iter().map(|one| one.mean)));
    approve.into_iter().map(|approve| point(seen, Threshold { approve, floor })).collect()
}

/// The threshold that approves most, of those with at least the `wanted` accuracy; of equals the most
/// accurate one. `None`: not even approving nothing is accurate enough.
pub(crate) fn suggest(seen: &[Observation], wanted: f64) -> Option<Point> {
    let mut floors = vec![-100.0];
    floors.extend(steps(seen.iter().map(|one| one.weakest)));
    let points = floors.into_iter().flat_map(|floor| curve(seen, floor));
    let enough = points.filter(|point| point.accuracy >= wanted - 1e-9);
    let better = |a: &Point, b: &Point| {
        a.approved.total_cmp(&b.approved).then(a.accuracy.total_cmp(&b.accuracy)).then_with(|| {
            // As strict as it can be: what comes later may be worse than what was seen.
            a.threshold.approve.total_cmp(&b.threshold.approve)
        })
    };
    enough.max_by(better)
}

/// What a suggestion is worth on questions that it was not chosen by: each half is judged by the other's.
/// `None` where a half allows none.
pub(crate) fn held_out(seen: &[Observation], wanted: impl Fn(&[Observation]) -> f64) -> Option<(f64, f64)> {
    let half = |odd: usize| -> Vec<Observation> {
        seen.iter().enumerate().filter(|(index, _)| index % 2 == odd).map(|(_, one)| *one).collect()
    };
    let (even, odd) = (half(0), half(1));
    let judged = |chosen: &[Observation], other: &[Observation]| {
        suggest(chosen, wanted(chosen)).map(|found| point(other, found.threshold))
    };
    let (a, b) = (judged(&even, &odd)?, judged(&odd, &even)?);
    let all = seen.len() as f64;
    let both = |of: fn(&Point) -> f64| (of(&a) * odd.len() as f64 + of(&b) * even.len() as f64) / all;
    Some((both(|point| point.accuracy), both(|point| point.approved)))
}

/// The share of right answers.
pub(crate) fn accuracy(right: impl Iterator<Item = bool>) -> f64 {
    let (mut all, mut good) = (0.0, 0.0);
    for is_right in right {
        all += 1.0;
        good += f64::from(u8::from(is_right));
    }
    if all > 0.0 { good / all } else { 0.0 }
}

/// Values that part `values` into equal shares, from the highest to the lowest.
fn steps(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.filter(|value| value.is_finite()).collect();
    values.sort_by(|a, b| b.total_cmp(a));
    let all = values.len();
    let at = |step: usize| values.get((step * all).div_ceil(STEPS).saturating_sub(1)).copied();
    let mut steps: Vec<f64> = (1..=STEPS).filter_map(at).collect();
    steps.dedup();
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The fleet is right where the reviewer is sure, and wrong elsewhere; the reviewer is always right.
    fn seen() -> Vec<Observation> {
        let one = |index: u32| Observation {
            mean: -0.01 * f64::from(index),
            weakest: -0.1 * f64::from(index),
            fleet_right: index < 60,
            own_right: true,
            own_tokens: 10,
        };
        (0..100).map(one).collect()
    }

    #[test]
    fn the_suggestion_approves_what_is_right_and_no_more() {
        let found = suggest(&seen(), 1.0).unwrap();
        assert!((0.5..=0.6).contains(&found.approved), "{found:?}");
        assert_eq!((found.accuracy, found.precision), (1.0, 1.0));
        assert!((found.decoded - (1.0 - found.approved)).abs() < 1e-9);
        let looser = suggest(&seen(), 0.9).unwrap();
        assert!(looser.approved > found.approved && looser.accuracy >= 0.9, "{looser:?}");
        let (accuracy, approved) = held_out(&seen(), |_| 1.0).unwrap();
        assert!(accuracy > 0.95 && approved > 0.4, "{accuracy} {approved}");
    }

    #[test]
    fn approving_nothing_is_the_reviewer_alone() {
        let nothing = curve(&seen(), 0.0)[0];
        // One answer has probability 1.
        assert!(nothing.approved <= 0.01 && nothing.decoded >= 0.99, "{nothing:?}");
        let everything = *curve(&seen(), -100.0).last().unwrap();
        assert_eq!((everything.approved, everything.accuracy, everything.decoded), (1.0, 0.6, 0.0));
    }

    #[test]
    fn a_reviewer_that_is_worse_than_what_is_wanted_leaves_no_threshold() {
        let mut bad = seen();
        bad.iter_mut().for_each(|one| (one.own_right, one.fleet_right) = (false, false));
        assert_eq!(suggest(&bad, 0.5), None);
        assert!(suggest(&[], 0.5).is_some(), "nothing asked, nothing wrong");
    }
}
