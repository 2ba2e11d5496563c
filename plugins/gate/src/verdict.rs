//! The built-in verdict. Unclear cases are rejections.

use tightwad_plugin_sdk::{Judgement, Review, ReviewMethods, TokenScore, Verdict};

use crate::scores::{first_below, longest_prefix, mean, weakest};
use crate::settings::Settings;

/// The verdict on a review by these methods, if there is no policy.
///
/// A judgement alone approves or rejects: it can say that something is wrong, but not where. With both methods, both
/// must approve, either rejects, and otherwise the scores say where to correct.
#[must_use]
pub fn built_in(review: &Review, methods: ReviewMethods, settings: &Settings) -> Verdict {
    let scored = methods.score.then(|| by_score(&review.scores, settings));
    if !methods.judge {
        return scored.unwrap_or(Verdict::Reject);
    }
    match (&review.judgement, scored) {
        (Some(Judgement::Approve), None) => Verdict::Approve,
        (Some(Judgement::Correct), Some(Verdict::Approve)) => {
            // No token is below the minimum, so the least probable one counts as wrong.
            correction(weakest(&review.scores), review.scores.len(), settings.min_kept_share)
        }
        (Some(Judgement::Approve | Judgement::Correct), Some(verdict)) => verdict,
        (Some(Judgement::Correct), None) => Verdict::Reject,
        (Some(Judgement::Reject | Judgement::Unclear | Judgement::Other(_)) | None, _) => Verdict::Reject,
    }
}

/// The verdict by scores alone.
#[must_use]
pub fn by_score(scores: &[TokenScore], settings: &Settings) -> Verdict {
    let kept = match first_below(scores, settings.min_token_logprob) {
        Some(bad) => bad,
        None if mean(scores) >= settings.min_mean_logprob => return Verdict::Approve,
        None => longest_prefix(scores, settings.min_mean_logprob),
    };
    correction(kept, scores.len(), settings.min_kept_share)
}

/// The verdict on an answer whose first `released_tokens` tokens the client has: it cannot be rejected any more.
#[must_use]
pub fn after_release(scores: &[TokenScore], released_tokens: u32, settings: &Settings) -> Verdict {
    // A released part was good enough by itself. It stays, whatever its share of the answer is.
    match by_score(scores, &Settings { min_kept_share: 0.0, ..*settings }) {
        Verdict::Correct(kept) => Verdict::Correct(kept.max(released_tokens)),
        Verdict::Reject => Verdict::Correct(released_tokens),
        Verdict::Approve => Verdict::Approve,
    }
}

/// A correction that keeps `kept` of `all` tokens. If their share is below `min_share`, a rejection.
fn correction(kept: usize, all: usize, min_share: f64) -> Verdict {
    if kept > 0 && kept as f64 / all as f64 >= min_share {
        Verdict::Correct(kept as u32)
    } else {
        Verdict::Reject
    }
}

/// A policy's verdict on an answer with `scored` scores. A correction out of range becomes a rejection.
#[must_use]
pub fn checked(verdict: Verdict, scored: usize) -> Verdict {
    match verdict {
        Verdict::Correct(kept) if kept == 0 || kept as usize > scored => Verdict::Reject,
        verdict => verdict,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tightwad_plugin_sdk::Settings as ScriptSettings;

    const SCORE: ReviewMethods = ReviewMethods { score: true, judge: false, policy: false };
    const JUDGE: ReviewMethods = ReviewMethods { score: false, judge: true, policy: false };
    const BOTH: ReviewMethods = ReviewMethods { score: true, judge: true, policy: false };

    fn scores(logprobs: &[f32]) -> Vec<TokenScore> {
        logprobs.iter().map(|logprob| TokenScore { logprob: *logprob, rank: 0 }).collect()
    }

    fn settings(script: &[(&str, f64)]) -> Settings {
        let script =
            script.iter().fold(ScriptSettings::default(), |all, (key, number)| all.with(key, *number));
        Settings::from_script(&script)
    }

    fn named(verdict: Verdict) -> String {
        match verdict {
            Verdict::Approve => "approve".to_owned(),
            Verdict::Correct(keep) => format!("correct {keep}"),
            Verdict::Reject => "reject".to_owned(),
        }
    }

    fn scored(logprobs: &[f32], script: &[(&str, f64)]) -> String {
        named(by_score(&scores(logprobs), &settings(script)))
    }

    fn judged(methods: ReviewMethods, logprobs: &[f32], judgement: Option<Judgement>) -> String {
        let review = Review { scores: scores(logprobs), judgement };
        named(built_in(&review, methods, &settings(&[])))
    }

    #[test]
    fn answer_is_approved_from_the_minimum_on() {
        assert_eq!(scored(&[-0.5, -1.5], &[]), "approve");
        assert_eq!(scored(&[-0.5, -1.75], &[]), "correct 1");
        assert_eq!(scored(&[0.0; 9], &[("min_mean_logprob", 0.0), ("min_token_logprob", 0.0)]), "approve");
    }

    #[test]
    fn answer_is_cut_before_the_first_bad_token() {
        assert_eq!(scored(&[-0.1, -0.1, -6.5, -0.1, -9.0], &[]), "correct 2");
        // The mean does not count if a token is below its minimum.
        assert_eq!(scored(&[-3.0, -3.0, -6.5, 0.0], &[]), "correct 2");
        // One bad token is enough, however good the mean is.
        let mut long = [0.0; 100];
        long[99] = -6.5;
        assert_eq!(scored(&long, &[]), "correct 99");
    }

    #[test]
    fn longest_good_prefix_stays_if_only_the_mean_is_low() {
        assert_eq!(scored(&[0.0, -2.0, 0.0, -2.5, -4.0, -0.5], &[]), "correct 3");
        assert_eq!(scored(&[-3.0, -3.0, -3.0], &[]), "reject");
    }

    #[test]
    fn too_small_kept_share_is_a_rejection() {
        let mut ten = [-0.1; 10];
        ten[3] = -7.0;
        assert_eq!(scored(&ten, &[]), "correct 3", "just enough");
        ten[2] = -7.0;
        assert_eq!(scored(&ten, &[]), "reject");
        assert_eq!(scored(&ten, &[("min_kept_share", 0.2)]), "correct 2");
        ten[0] = -7.0;
        assert_eq!(scored(&ten, &[("min_kept_share", 0.0)]), "reject", "no token stays");
        assert_eq!(scored(&[-0.1, -0.1, -7.0], &[("min_kept_share", 1.0)]), "reject");
    }

    #[test]
    fn missing_and_invalid_scores_are_never_approved() {
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
    fn judgement_alone_approves_or_rejects() {
        assert_eq!(judged(JUDGE, &[], Some(Judgement::Approve)), "approve");
        for other in [Some(Judgement::Correct), Some(Judgement::Reject), Some(Judgement::Unclear), None] {
            assert_eq!(judged(JUDGE, &[], other.clone()), "reject", "{other:?}");
        }
        assert_eq!(judged(JUDGE, &[-9.0], Some(Judgement::Approve)), "approve", "scores were not wanted");
    }

    #[test]
    fn unwanted_judgement_does_not_count() {
        assert_eq!(judged(SCORE, &[-0.1], Some(Judgement::Reject)), "approve");
        assert_eq!(judged(SCORE, &[-9.0], Some(Judgement::Approve)), "reject");
    }

    #[test]
    fn both_methods_must_approve() {
        let (good, cut, bad) = ([-0.1, -0.1, -0.5, -0.1], [-0.1, -0.1, -7.0, -0.1], [-7.0; 4]);
        let table = [
            (Some(Judgement::Approve), ["approve", "correct 2", "reject"]),
            // A good answer is cut at its weakest token.
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
        assert_eq!(judged(BOTH, &[-0.9, -0.1], Some(Judgement::Correct)), "reject", "no token stays");
    }

    #[test]
    fn review_without_a_method_is_a_rejection() {
        let none = ReviewMethods { score: false, judge: false, policy: false };
        assert_eq!(judged(none, &[-0.1], Some(Judgement::Approve)), "reject");
    }

    #[test]
    fn policy_correction_out_of_range_is_a_rejection() {
        let checked = |verdict, scored| named(checked(verdict, scored));
        for (keep, scored) in [(0, 5), (6, 5), (u32::MAX, 5), (1, 0), (0, 0)] {
            assert_eq!(checked(Verdict::Correct(keep), scored), "reject", "{keep} of {scored}");
        }
        assert_eq!(checked(Verdict::Correct(5), 5), "correct 5");
        assert_eq!(checked(Verdict::Approve, 0), "approve");
        assert_eq!(checked(Verdict::Reject, 5), "reject");
    }
}
