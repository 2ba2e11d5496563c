//! What becomes of an answer. Whatever is unclear is a rejection.

use tightwad_plugin_sdk::{Judgement, Review, ReviewMethods, TokenScore, Verdict};

use crate::scores::{first_below, longest, mean, weakest};
use crate::settings::Settings;

/// The verdict where no policy plugin gives one, on a review by these ways.
///
/// A judgement rejects or approves by itself, and says that something is wrong but not where. By both ways an
/// answer is approved by both, rejected by either, and otherwise corrected where the scores say.
#[must_use]
pub fn built_in(review: &Review, ways: ReviewMethods, settings: &Settings) -> Verdict {
    let scored = ways.score.then(|| by_score(&review.scores, settings));
    if !ways.judge {
        return scored.unwrap_or(Verdict::Reject);
    }
    match (&review.judgement, scored) {
        (Some(Judgement::Approve), None) => Verdict::Approve,
        (Some(Judgement::Correct), Some(Verdict::Approve)) => {
            // No token is bad: the one that the reviewer doubts most.
            cut(weakest(&review.scores), review.scores.len(), settings.keep)
        }
        (Some(Judgement::Approve | Judgement::Correct), Some(verdict)) => verdict,
        (Some(Judgement::Correct), None) => Verdict::Reject,
        (Some(Judgement::Reject | Judgement::Unclear | Judgement::Other(_)) | None, _) => Verdict::Reject,
    }
}

/// The verdict by scores alone.
#[must_use]
pub fn by_score(scores: &[TokenScore], settings: &Settings) -> Verdict {
    let keep = match first_below(scores, settings.floor) {
        Some(bad) => bad,
        None if mean(scores) >= settings.approve => return Verdict::Approve,
        None => longest(scores, settings.approve),
    };
    cut(keep, scores.len(), settings.keep)
}

/// The verdict on an answer of which the client has the first `passed` tokens: it cannot be rejected any more.
#[must_use]
pub fn going_on(scores: &[TokenScore], passed: u32, settings: &Settings) -> Verdict {
    // What was good enough by itself is a beginning that is good enough, whatever share of the whole it is.
    match by_score(scores, &Settings { keep: 0.0, ..*settings }) {
        Verdict::Correct(keep) => Verdict::Correct(keep.max(passed)),
        Verdict::Reject => Verdict::Correct(passed),
        Verdict::Approve => Verdict::Approve,
    }
}

/// A correction that keeps `keep` of `all` tokens, where that is at least the share `least`.
fn cut(keep: usize, all: usize, least: f64) -> Verdict {
    if keep > 0 && keep as f64 / all as f64 >= least {
        Verdict::Correct(keep as u32)
    } else {
        Verdict::Reject
    }
}

/// A policy plugin's verdict on an answer with `scored` tokens: a correction that cannot be made is a
/// rejection.
#[must_use]
pub fn checked(verdict: Verdict, scored: usize) -> Verdict {
    match verdict {
        Verdict::Correct(keep) if keep == 0 || keep as usize > scored => Verdict::Reject,
        verdict => verdict,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tightwad_plugin_sdk::Settings as Given;

    const SCORE: ReviewMethods = ReviewMethods { score: true, judge: false, policy: false };
    const JUDGE: ReviewMethods = ReviewMethods { score: false, judge: true, policy: false };
    const BOTH: ReviewMethods = ReviewMethods { score: true, judge: true, policy: false };

    fn scores(logprobs: &[f32]) -> Vec<TokenScore> {
        logprobs.iter().map(|logprob| TokenScore { logprob: *logprob, rank: 0 }).collect()
    }

    fn settings(given: &[(&str, f64)]) -> Settings {
        let given = given.iter().fold(Given::default(), |all, (key, number)| all.with(key, *number));
        Settings::read(&given)
    }

    fn named(verdict: Verdict) -> String {
        match verdict {
            Verdict::Approve => "approve".to_owned(),
            Verdict::Correct(keep) => format!("correct {keep}"),
            Verdict::Reject => "reject".to_owned(),
        }
    }

    fn scored(logprobs: &[f32], given: &[(&str, f64)]) -> String {
        named(by_score(&scores(logprobs), &settings(given)))
    }

    fn judged(ways: ReviewMethods, logprobs: &[f32], judgement: Option<Judgement>) -> String {
        let review = Review { scores: scores(logprobs), judgement };
        named(built_in(&review, ways, &settings(&[])))
    }

    #[test]
    fn an_answer_is_approved_from_the_threshold_on() {
        assert_eq!(scored(&[-0.5, -1.5], &[]), "approve");
        assert_eq!(scored(&[-0.5, -1.75], &[]), "correct 1");
        assert_eq!(scored(&[0.0; 9], &[("min_mean_logprob", 0.0), ("min_token_logprob", 0.0)]), "approve");
    }

    #[test]
    fn it_is_cut_before_the_first_bad_token() {
        assert_eq!(scored(&[-0.1, -0.1, -6.5, -0.1, -9.0], &[]), "correct 2");
        // What is in front of a bad token is not held against the threshold.
        assert_eq!(scored(&[-3.0, -3.0, -6.5, 0.0], &[]), "correct 2");
        // One bad token is one too many, however good the mean.
        let mut long = [0.0; 100];
        long[99] = -6.5;
        assert_eq!(scored(&long, &[]), "correct 99");
    }

    #[test]
    fn where_only_the_mean_is_low_the_longest_good_beginning_stays() {
        assert_eq!(scored(&[0.0, -2.0, 0.0, -2.5, -4.0, -0.5], &[]), "correct 3");
        assert_eq!(scored(&[-3.0, -3.0, -3.0], &[]), "reject");
    }

    #[test]
    fn too_little_that_stays_is_a_rejection() {
        let mut ten = [-0.1; 10];
        ten[3] = -7.0;
        assert_eq!(scored(&ten, &[]), "correct 3", "just enough");
        ten[2] = -7.0;
        assert_eq!(scored(&ten, &[]), "reject");
        assert_eq!(scored(&ten, &[("min_kept_share", 0.2)]), "correct 2");
        ten[0] = -7.0;
        assert_eq!(scored(&ten, &[("min_kept_share", 0.0)]), "reject", "nothing stays");
        assert_eq!(scored(&[-0.1, -0.1, -7.0], &[("min_kept_share", 1.0)]), "reject");
    }

    #[test]
    fn no_scores_and_nonsense_are_never_approved() {
        assert_eq!(
            scored(
                &[],
                &[("min_mean_logprob", -100.0), ("min_token_logprob", -100.0), ("min_kept_share", 0.0)]
            ),
            "reject"
        );
        for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 9.0] {
            assert_eq!(
                scored(
                    &[odd, 0.0],
                    &[("min_mean_logprob", -100.0), ("min_token_logprob", -100.0), ("min_kept_share", 0.0)]
                ),
                "reject",
                "{odd}"
            );
            assert_eq!(
                scored(&[0.0, odd], &[("min_mean_logprob", -100.0), ("min_token_logprob", -100.0)]),
                "correct 1",
                "{odd}"
            );
        }
    }

    #[test]
    fn a_judgement_alone_approves_or_rejects() {
        assert_eq!(judged(JUDGE, &[], Some(Judgement::Approve)), "approve");
        for other in [Some(Judgement::Correct), Some(Judgement::Reject), Some(Judgement::Unclear), None] {
            assert_eq!(judged(JUDGE, &[], other.clone()), "reject", "{other:?}");
        }
        assert_eq!(judged(JUDGE, &[-9.0], Some(Judgement::Approve)), "approve", "nobody asked for scores");
    }

    #[test]
    fn a_judgement_that_nobody_wanted_does_not_count() {
        assert_eq!(judged(SCORE, &[-0.1], Some(Judgement::Reject)), "approve");
        assert_eq!(judged(SCORE, &[-9.0], Some(Judgement::Approve)), "reject");
    }

    #[test]
    fn by_both_ways_both_must_approve() {
        let (good, cut, bad) = ([-0.1, -0.1, -0.5, -0.1], [-0.1, -0.1, -7.0, -0.1], [-7.0; 4]);
        let table = [
            (Some(Judgement::Approve), ["approve", "correct 2", "reject"]),
            // The weakest token of a good answer is where it is cut.
            (Some(Judgement::Correct), ["correct 2", "correct 2", "reject"]),
            (Some(Judgement::Reject), ["reject"; 3]),
            (Some(Judgement::Unclear), ["reject"; 3]),
            (None, ["reject"; 3]),
        ];
        for (judgement, expected) in table {
            let verdicts = [good, cut, bad].map(|logprobs| judged(BOTH, &logprobs, judgement.clone()));
            assert_eq!(verdicts, expected, "{judgement:?}");
        }
        assert_eq!(judged(BOTH, &[], Some(Judgement::Approve)), "reject", "no scores");
        assert_eq!(judged(BOTH, &[-0.9, -0.1], Some(Judgement::Correct)), "reject", "nothing stays");
    }

    #[test]
    fn without_a_way_nothing_is_approved() {
        let none = ReviewMethods { score: false, judge: false, policy: false };
        assert_eq!(judged(none, &[-0.1], Some(Judgement::Approve)), "reject");
    }

    #[test]
    fn a_policy_cannot_correct_what_is_not_there() {
        let checked = |verdict, scored| named(checked(verdict, scored));
        for (keep, scored) in [(0, 5), (6, 5), (u32::MAX, 5), (1, 0), (0, 0)] {
            assert_eq!(checked(Verdict::Correct(keep), scored), "reject", "{keep} of {scored}");
        }
        assert_eq!(checked(Verdict::Correct(5), 5), "correct 5");
        assert_eq!(checked(Verdict::Approve, 0), "approve");
        assert_eq!(checked(Verdict::Reject, 5), "reject");
    }
}
