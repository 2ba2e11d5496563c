//! Whole requests on a simulated host, which checks each call against the contract.

mod simulation;

use simulation::{Fault, Outcome, Simulation, Writer};
use tightwad_gate::driver::Driver;
use tightwad_plugin_sdk::{Error, Judgement, Review, Settings, Verdict};

const SCORE: (bool, bool) = (true, false);
const JUDGE: (bool, bool) = (false, true);
const BOTH: (bool, bool) = (true, true);

const GOOD: &[f32] = &[-0.2, -0.2, -0.4, -0.2];
const BETTER: &[f32] = &[-0.1, -0.1, -0.1, -0.1];
/// A correction keeps two tokens of four.
const TWO_OF_FOUR: &[f32] = &[-0.1, -0.1, -7.0, -0.1];
/// A correction keeps three tokens of four.
const THREE_OF_FOUR: &[f32] = &[-0.1, -0.1, -0.1, -7.0];
const BAD: &[f32] = &[-8.0, -8.0, -8.0, -8.0];

fn run(host: &Simulation) -> Outcome {
    assert!(Driver::new(host).run().is_ok());
    let Some(outcome) = host.outcome.get() else { unreachable!("every request ends") };
    outcome
}

fn one(methods: (bool, bool), writer: Writer) -> (Outcome, Simulation) {
    let host = Simulation::new(methods, &[writer]);
    (run(&host), host)
}

fn several(methods: (bool, bool), parallel: u32, fleet: &[Writer]) -> Simulation {
    let mut host = Simulation::new(methods, fleet);
    host.settings = Settings::default().with("parallel", parallel);
    host
}

#[test]
fn review_by_score_approves_corrects_and_rejects() {
    for (scores, outcome) in
        [(GOOD, Outcome::Approved(0)), (TWO_OF_FOUR, Outcome::Corrected(0, 2)), (BAD, Outcome::Rejected)]
    {
        let (end, host) = one(SCORE, Writer::new(scores));
        assert_eq!(end, outcome);
        assert!(host.judged.borrow().is_empty());
    }
}

#[test]
fn review_by_judgement_approves_or_rejects() {
    let table = [
        (Judgement::Approve, Outcome::Approved(0)),
        (Judgement::Correct, Outcome::Rejected),
        (Judgement::Reject, Outcome::Rejected),
        (Judgement::Unclear, Outcome::Rejected),
    ];
    for (judgement, outcome) in table {
        let (end, host) = one(JUDGE, Writer::new(GOOD).with_judgement(judgement.clone()));
        assert_eq!(end, outcome, "{judgement:?}");
        assert!(host.scored.borrow().is_empty());
    }
}

#[test]
fn either_method_can_reject() {
    let table = [
        (GOOD, Judgement::Approve, Outcome::Approved(0)),
        (TWO_OF_FOUR, Judgement::Approve, Outcome::Corrected(0, 2)),
        (TWO_OF_FOUR, Judgement::Correct, Outcome::Corrected(0, 2)),
        (GOOD, Judgement::Correct, Outcome::Corrected(0, 2)),
        (GOOD, Judgement::Reject, Outcome::Rejected),
        (TWO_OF_FOUR, Judgement::Unclear, Outcome::Rejected),
    ];
    for (scores, judgement, outcome) in table {
        let (end, host) = one(BOTH, Writer::new(scores).with_judgement(judgement.clone()));
        assert_eq!(end, outcome, "{scores:?} {judgement:?}");
        assert_eq!(host.judged.borrow().len(), 1);
    }
}

#[test]
fn reviewer_is_not_asked_when_the_scores_reject() {
    let (end, host) = one(BOTH, Writer::new(BAD));
    assert_eq!(end, Outcome::Rejected);
    assert!(host.judged.borrow().is_empty());
}

#[test]
fn fleet_does_not_write_without_a_review_method() {
    let (end, host) = one((false, false), Writer::new(GOOD));
    assert_eq!(end, Outcome::Rejected);
    assert!(host.generate_calls.borrow().is_empty());
    assert_eq!(host.warnings.borrow().len(), 1);
}

#[test]
fn empty_answer_is_rejected_and_cut_off_answer_is_reviewed() {
    for methods in [SCORE, JUDGE, BOTH] {
        let (end, host) = one(methods, Writer { character_count: 0, ..Writer::new(BETTER) });
        assert_eq!(end, Outcome::Rejected);
        assert!(host.scored.borrow().is_empty() && host.judged.borrow().is_empty());
        let (end, _) = one(methods, Writer { complete: false, ..Writer::new(BETTER) });
        assert_eq!(end, Outcome::Approved(0));
    }
}

#[test]
fn failed_review_rejects() {
    for fault in [Fault::Refused, Fault::Backend] {
        for methods in [SCORE, BOTH] {
            let (end, host) = one(methods, Writer { scores: Err(fault), ..Writer::new(BETTER) });
            assert_eq!(end, Outcome::Rejected);
            assert!(host.judged.borrow().is_empty(), "the missing scores reject it");
            assert!(host.warnings.borrow()[0].starts_with("a review by score failed: it "));
        }
        for methods in [JUDGE, BOTH] {
            let (end, host) = one(methods, Writer { judgement: Err(fault), ..Writer::new(BETTER) });
            assert_eq!(end, Outcome::Rejected);
            assert!(host.warnings.borrow()[0].starts_with("a review by judgement failed: it "));
        }
    }
}

#[test]
fn missing_and_invalid_scores_reject() {
    for methods in [SCORE, BOTH] {
        for scores in [&[] as &[f32], &[f32::NAN; 4], &[f32::INFINITY; 4], &[50.0; 4]] {
            let (end, _) = one(methods, Writer::new(scores));
            assert_eq!(end, Outcome::Rejected, "{scores:?}");
        }
        let (end, _) = one(methods, Writer::new(&[-0.1, -0.1, f32::NAN, -0.1]));
        assert_eq!(end, Outcome::Corrected(0, 2));
    }
}

#[test]
fn failed_review_of_one_candidate_leaves_the_others() {
    let broken = Writer { scores: Err(Fault::Backend), ..Writer::new(BETTER) };
    assert_eq!(run(&several(SCORE, 2, &[broken, Writer::new(GOOD)])), Outcome::Approved(1));
    let broken = Writer { judgement: Err(Fault::Backend), ..Writer::new(BETTER) };
    assert_eq!(run(&several(BOTH, 2, &[broken, Writer::new(GOOD)])), Outcome::Approved(1));
}

#[test]
fn best_approved_candidate_wins() {
    let fleet = [Writer::new(THREE_OF_FOUR), Writer::new(GOOD), Writer::new(BETTER), Writer::new(BAD)];
    let host = several(SCORE, 4, &fleet);
    assert_eq!(run(&host), Outcome::Approved(2));
    assert_eq!(*host.generate_calls.borrow(), [[0, 1, 2, 3]]);
    let two = several(SCORE, 2, &fleet);
    assert_eq!(run(&two), Outcome::Approved(1), "an approval is better than a correction");
}

#[test]
fn longest_correction_wins_without_an_approval() {
    let fleet =
        [Writer::new(TWO_OF_FOUR), Writer::new(BAD), Writer::new(THREE_OF_FOUR), Writer::new(TWO_OF_FOUR)];
    assert_eq!(run(&several(SCORE, 4, &fleet)), Outcome::Corrected(2, 3));
    assert_eq!(run(&several(SCORE, 2, &fleet)), Outcome::Corrected(0, 2));
    // Its mean may be better or worse than that of the others.
    for bad in [-6.5, -20.0] {
        let long = Writer::new(&[-0.1, -0.1, -0.1, bad]);
        assert_eq!(
            run(&several(SCORE, 2, &[Writer::new(TWO_OF_FOUR), long.clone()])),
            Outcome::Corrected(1, 3)
        );
        assert_eq!(run(&several(SCORE, 2, &[long, Writer::new(TWO_OF_FOUR)])), Outcome::Corrected(0, 3));
    }
    assert_eq!(run(&several(SCORE, 2, &[Writer::new(BAD), Writer::new(BAD)])), Outcome::Rejected);
}

#[test]
fn judgements_stop_at_the_first_approval() {
    let fleet = [Writer::new(GOOD).with_judgement(Judgement::Reject), Writer::new(GOOD), Writer::new(BETTER)];
    let host = several(JUDGE, 3, &fleet);
    assert_eq!(run(&host), Outcome::Approved(1), "the first approved one");
    assert_eq!(*host.judged.borrow(), [0, 1]);
    let host = several(BOTH, 3, &fleet);
    assert_eq!(run(&host), Outcome::Approved(2), "the candidate with the best scores is judged first");
    assert_eq!((host.scored.borrow().len(), host.judged.borrow().as_slice()), (3, [2].as_slice()));
}

#[test]
fn failed_members_are_replaced() {
    let host = Simulation::new(SCORE, &[Writer::failing(), Writer::failing(), Writer::new(GOOD)]);
    assert_eq!(run(&host), Outcome::Approved(0), "candidates are numbered in the order of arrival");
    assert_eq!(*host.generate_calls.borrow(), [[0], [1], [2]]);
    let fleet =
        [Writer::new(BAD), Writer::failing(), Writer::failing(), Writer::new(GOOD), Writer::new(BETTER)];
    let host = several(SCORE, 3, &fleet);
    assert_eq!(run(&host), Outcome::Approved(2));
    assert_eq!(*host.generate_calls.borrow(), [vec![0, 1, 2], vec![3, 4]]);
}

#[test]
fn too_few_members_are_enough() {
    let host = several(SCORE, 3, &[Writer::failing(), Writer::new(GOOD)]);
    assert_eq!(run(&host), Outcome::Approved(0));
    assert_eq!(*host.generate_calls.borrow(), [[0, 1]]);
}

#[test]
fn reviewer_answers_if_no_member_is_left() {
    assert_eq!(run(&Simulation::new(SCORE, &[])), Outcome::Rejected);
    let host = several(BOTH, 2, &[Writer::failing(), Writer::failing(), Writer::failing()]);
    assert_eq!(run(&host), Outcome::Rejected);
    assert_eq!(*host.generate_calls.borrow(), [vec![0, 1], vec![2]]);
}

#[test]
fn busy_members_write_only_after_idle_ones_failed() {
    let host = Simulation::new(
        SCORE,
        &[Writer { pending_requests: 2, ..Writer::new(GOOD) }, Writer::failing(), Writer::failing()],
    );
    assert_eq!(run(&host), Outcome::Approved(0));
    assert_eq!(*host.generate_calls.borrow(), [[1], [2], [0]]);
}

#[test]
fn rejected_answers_are_retried_up_to_the_limit() {
    let fleet = [Writer::new(BAD), Writer { character_count: 0, ..Writer::new(BAD) }, Writer::new(GOOD)];
    for (retries, outcome, calls) in [
        (0, Outcome::Rejected, 1),
        (1, Outcome::Rejected, 2),
        (2, Outcome::Approved(2), 3),
        (9, Outcome::Approved(2), 3),
    ] {
        let mut host = Simulation::new(BOTH, &fleet);
        host.settings = Settings::default().with("max_retries", retries);
        assert_eq!(run(&host), outcome, "{retries}");
        assert_eq!(host.generate_calls.borrow().len(), calls, "{retries}");
    }
    let mut host = Simulation::new(SCORE, &[Writer::new(BAD), Writer::new(BAD)]);
    host.settings = Settings::default().with("max_retries", 9);
    assert_eq!(run(&host), Outcome::Rejected, "no member is left");
    let mut host = Simulation::new(SCORE, &[Writer::new(TWO_OF_FOUR), Writer::new(GOOD)]);
    host.settings = Settings::default().with("max_retries", 9);
    assert_eq!(run(&host), Outcome::Corrected(0, 2), "a correction is not a rejection");
}

#[test]
fn failed_member_costs_no_retry() {
    let mut host = Simulation::new(SCORE, &[Writer::new(BAD), Writer::failing(), Writer::new(GOOD)]);
    host.settings = Settings::default().with("max_retries", 1);
    assert_eq!(run(&host), Outcome::Approved(1));
}

#[test]
fn failed_generate_call_ends_the_writing() {
    for fault in [Fault::Refused, Fault::Backend] {
        let mut host = Simulation::new(SCORE, &[Writer::new(GOOD), Writer::new(GOOD)]);
        host.generate_fails = Some((0, fault));
        assert_eq!(run(&host), Outcome::Rejected);
        assert_eq!(host.warnings.borrow().len(), 1);
        assert_eq!(host.generate_calls.borrow().len(), 1, "the number of the next candidate is unknown");
        // Earlier candidates count.
        let mut host = several(SCORE, 2, &[Writer::new(GOOD), Writer::failing(), Writer::new(BETTER)]);
        host.generate_fails = Some((1, fault));
        assert_eq!(run(&host), Outcome::Approved(0));
    }
}

#[test]
fn policy_decides_in_place_of_the_gate() {
    let table: [(simulation::Policy, &[f32], Outcome); 3] = [
        (|_, _| Verdict::Approve, BAD, Outcome::Approved(0)),
        (|_, review| Verdict::Correct(review.scores.len() as u32), GOOD, Outcome::Corrected(0, 4)),
        (|_, _| Verdict::Reject, BETTER, Outcome::Rejected),
    ];
    for (policy, scores, outcome) in table {
        let mut host = Simulation::new(SCORE, &[Writer::new(scores)]);
        host.policy = Some(policy);
        assert_eq!(run(&host), outcome);
        assert_eq!(host.policy_calls.get(), 1);
    }
}

#[test]
fn policy_receives_complete_reviews_of_bad_scores_too() {
    let follow_judgement: simulation::Policy = |_, review: &Review| match review.judgement {
        Some(Judgement::Approve) => Verdict::Approve,
        _ => Verdict::Reject,
    };
    let mut host = several(BOTH, 2, &[Writer::new(BAD).with_judgement(Judgement::Reject), Writer::new(BAD)]);
    host.policy = Some(follow_judgement);
    assert_eq!(run(&host), Outcome::Approved(1));
    assert_eq!(*host.judged.borrow(), [0, 1]);
    assert_eq!(host.policy_calls.get(), 2);
}

#[test]
fn policy_correction_out_of_range_is_a_rejection() {
    let policies: [simulation::Policy; 3] =
        [|_, _| Verdict::Correct(0), |_, _| Verdict::Correct(5), |_, _| Verdict::Correct(u32::MAX)];
    for policy in policies {
        for methods in [SCORE, BOTH] {
            let mut host = Simulation::new(methods, &[Writer::new(GOOD)]);
            host.policy = Some(policy);
            assert_eq!(run(&host), Outcome::Rejected);
        }
    }
    let mut host = Simulation::new(JUDGE, &[Writer::new(GOOD)]);
    host.policy = Some(|_, _| Verdict::Correct(1));
    assert_eq!(run(&host), Outcome::Rejected, "it has no scores");
}

#[test]
fn policy_is_not_asked_after_a_failed_review() {
    for scores in [Ok(Vec::new()), Err(Fault::Backend)] {
        let mut host = Simulation::new(SCORE, &[Writer { scores, ..Writer::new(GOOD) }]);
        host.policy = Some(|_, _| Verdict::Approve);
        assert_eq!(run(&host), Outcome::Rejected);
        assert_eq!(host.policy_calls.get(), 0);
    }
    let mut host = Simulation::new(BOTH, &[Writer { judgement: Err(Fault::Backend), ..Writer::new(GOOD) }]);
    host.policy = Some(|_, _| Verdict::Approve);
    assert_eq!(run(&host), Outcome::Rejected);
}

#[test]
fn refused_verdict_is_a_rejection() {
    for scores in [GOOD, TWO_OF_FOUR] {
        let mut host = Simulation::new(SCORE, &[Writer::new(scores)]);
        host.end_fails = Some(Fault::Refused);
        assert_eq!(run(&host), Outcome::Rejected);
        assert!(host.warnings.borrow()[0].contains("it was too much"));
    }
}

#[test]
fn failed_ending_is_left_to_the_host() {
    let mut host = Simulation::new(SCORE, &[Writer::new(GOOD)]);
    host.end_fails = Some(Fault::Backend);
    assert!(matches!(Driver::new(&host).run(), Err(Error::Backend(_))));
    assert_eq!(host.outcome.get(), None, "the client may have a part of it");
    let mut host = Simulation::new(SCORE, &[Writer::new(BAD)]);
    host.reject_fails = Some(Fault::Backend);
    assert!(matches!(Driver::new(&host).run(), Err(Error::Backend(_))));
}

#[test]
fn finished_request_is_left_alone() {
    let over = Fault::Finished;
    let fine = Writer::new(GOOD);
    let mut hosts = vec![
        Simulation::new(SCORE, &[Writer { scores: Err(over), ..fine.clone() }, fine.clone()]),
        Simulation::new(BOTH, &[Writer { judgement: Err(over), ..fine.clone() }, fine.clone()]),
    ];
    let mut writing = Simulation::new(SCORE, &[fine.clone(), fine.clone()]);
    writing.generate_fails = Some((0, over));
    let mut ending = Simulation::new(SCORE, &[fine]);
    ending.end_fails = Some(over);
    hosts.extend([writing, ending]);
    for host in hosts {
        assert!(matches!(Driver::new(&host).run(), Err(Error::Finished)));
        assert_eq!((host.outcome.get(), host.generate_calls.borrow().len()), (None, 1));
        assert!(host.warnings.borrow().is_empty(), "the end of a request is not a failure");
    }
}

/// An answer with `good` good tokens, then `bad` bad ones.
fn long(good: usize, bad: usize) -> Writer {
    Writer::new(&[vec![-0.1; good], vec![-9.0; bad]].concat())
}

#[test]
fn prefix_of_a_good_answer_is_released_during_the_review() {
    let (end, host) = one(SCORE, long(150, 0));
    assert_eq!(end, Outcome::Approved(0));
    assert_eq!(*host.released.borrow(), [(0, 32), (0, 64), (0, 128)]);
    // The client has this part, so it cannot be rejected, however small its share is.
    let (end, host) = one(SCORE, long(40, 200));
    assert_eq!((end, host.released.borrow().len()), (Outcome::Corrected(0, 40), 1));
    // A part that is not good is not released, and the complete answer decides.
    let (end, host) = one(SCORE, long(20, 200));
    assert_eq!((end, host.released.borrow().len()), (Outcome::Rejected, 0));
}

#[test]
fn nothing_is_released_where_more_than_scores_decide() {
    let mut off = Simulation::new(SCORE, &[long(150, 0)]);
    off.settings = Settings::default().with("stream", false);
    let mut policy = Simulation::new(SCORE, &[long(150, 0)]);
    policy.policy = Some(|_, _| Verdict::Approve);
    let both = Simulation::new(BOTH, &[long(150, 0)]);
    let two = several(SCORE, 2, &[long(150, 0), long(150, 0)]);
    let mut refused = Simulation::new(SCORE, &[long(150, 0)]);
    refused.release_fails = Some(Fault::Refused);
    for host in [off, policy, both, two, refused] {
        assert_eq!(run(&host), Outcome::Approved(0));
        assert!(host.released.borrow().is_empty());
    }
}
