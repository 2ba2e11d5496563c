//! Whole requests on a simulated host, which checks that every call is one that it allows.

mod simulation;

use simulation::{Ended, Fault, Simulation, Writer};
use tightwad_gate::drive::Drive;
use tightwad_plugin_sdk::{Error, Judgement, Review, Settings, Verdict};

const SCORE: (bool, bool) = (true, false);
const JUDGE: (bool, bool) = (false, true);
const BOTH: (bool, bool) = (true, true);

const GOOD: &[f32] = &[-0.2, -0.2, -0.4, -0.2];
const BETTER: &[f32] = &[-0.1, -0.1, -0.1, -0.1];
/// Two tokens of four stay.
const HALF: &[f32] = &[-0.1, -0.1, -7.0, -0.1];
/// Three tokens of four stay.
const MOST: &[f32] = &[-0.1, -0.1, -0.1, -7.0];
const BAD: &[f32] = &[-8.0, -8.0, -8.0, -8.0];

fn run(host: &Simulation) -> Ended {
    assert!(Drive::new(host).run().is_ok());
    let Some(end) = host.ended.get() else { unreachable!("every request is ended") };
    end
}

fn one(ways: (bool, bool), writer: Writer) -> (Ended, Simulation) {
    let host = Simulation::new(ways, &[writer]);
    (run(&host), host)
}

fn several(ways: (bool, bool), drafts: u32, fleet: &[Writer]) -> Simulation {
    let mut host = Simulation::new(ways, fleet);
    host.settings = Settings::default().with("parallel", drafts);
    host
}

#[test]
fn a_review_by_score_approves_corrects_and_rejects() {
    for (scores, ended) in
        [(GOOD, Ended::Approved(0)), (HALF, Ended::Corrected(0, 2)), (BAD, Ended::Rewritten)]
    {
        let (end, host) = one(SCORE, Writer::new(scores));
        assert_eq!(end, ended);
        assert!(host.asked.borrow().is_empty());
    }
}

#[test]
fn a_review_by_judgement_approves_or_rejects() {
    let table = [
        (Judgement::Approve, Ended::Approved(0)),
        (Judgement::Correct, Ended::Rewritten),
        (Judgement::Reject, Ended::Rewritten),
        (Judgement::Unclear, Ended::Rewritten),
    ];
    for (judgement, ended) in table {
        let (end, host) = one(JUDGE, Writer::new(GOOD).judged(judgement.clone()));
        assert_eq!(end, ended, "{judgement:?}");
        assert!(host.scored.borrow().is_empty());
    }
}

#[test]
fn by_both_ways_either_can_reject() {
    let table = [
        (GOOD, Judgement::Approve, Ended::Approved(0)),
        (HALF, Judgement::Approve, Ended::Corrected(0, 2)),
        (HALF, Judgement::Correct, Ended::Corrected(0, 2)),
        (GOOD, Judgement::Correct, Ended::Corrected(0, 2)),
        (GOOD, Judgement::Reject, Ended::Rewritten),
        (HALF, Judgement::Unclear, Ended::Rewritten),
    ];
    for (scores, judgement, ended) in table {
        let (end, host) = one(BOTH, Writer::new(scores).judged(judgement.clone()));
        assert_eq!(end, ended, "{scores:?} {judgement:?}");
        assert_eq!(host.asked.borrow().len(), 1);
    }
}

#[test]
fn nobody_pays_for_a_judgement_when_the_scores_reject() {
    let (end, host) = one(BOTH, Writer::new(BAD));
    assert_eq!(end, Ended::Rewritten);
    assert!(host.asked.borrow().is_empty());
}

#[test]
fn without_a_way_nobody_writes() {
    let (end, host) = one((false, false), Writer::new(GOOD));
    assert_eq!(end, Ended::Rewritten);
    assert!(host.writes.borrow().is_empty());
    assert_eq!(host.warnings.borrow().len(), 1);
}

#[test]
fn an_empty_answer_is_rejected_unread_and_a_cut_off_one_is_not() {
    for ways in [SCORE, JUDGE, BOTH] {
        let (end, host) = one(ways, Writer { characters: 0, ..Writer::new(BETTER) });
        assert_eq!(end, Ended::Rewritten);
        assert!(host.scored.borrow().is_empty() && host.asked.borrow().is_empty());
        let (end, _) = one(ways, Writer { whole: false, ..Writer::new(BETTER) });
        assert_eq!(end, Ended::Approved(0));
    }
}

#[test]
fn a_review_that_fails_rejects() {
    for fault in [Fault::Refused, Fault::Backend] {
        for ways in [SCORE, BOTH] {
            let (end, host) = one(ways, Writer { scores: Err(fault), ..Writer::new(BETTER) });
            assert_eq!(end, Ended::Rewritten);
            assert!(host.asked.borrow().is_empty(), "it is rejected already");
            assert!(host.warnings.borrow()[0].starts_with("a review by score failed: it "));
        }
        for ways in [JUDGE, BOTH] {
            let (end, host) = one(ways, Writer { judgement: Err(fault), ..Writer::new(BETTER) });
            assert_eq!(end, Ended::Rewritten);
            assert!(host.warnings.borrow()[0].starts_with("a review by judgement failed: it "));
        }
    }
}

#[test]
fn missing_scores_and_nonsense_reject() {
    for ways in [SCORE, BOTH] {
        for scores in [&[] as &[f32], &[f32::NAN; 4], &[f32::INFINITY; 4], &[50.0; 4]] {
            let (end, _) = one(ways, Writer::new(scores));
            assert_eq!(end, Ended::Rewritten, "{scores:?}");
        }
        let (end, _) = one(ways, Writer::new(&[-0.1, -0.1, f32::NAN, -0.1]));
        assert_eq!(end, Ended::Corrected(0, 2));
    }
}

#[test]
fn a_failed_review_of_one_leaves_the_others() {
    let broken = Writer { scores: Err(Fault::Backend), ..Writer::new(BETTER) };
    assert_eq!(run(&several(SCORE, 2, &[broken, Writer::new(GOOD)])), Ended::Approved(1));
    let broken = Writer { judgement: Err(Fault::Backend), ..Writer::new(BETTER) };
    assert_eq!(run(&several(BOTH, 2, &[broken, Writer::new(GOOD)])), Ended::Approved(1));
}

#[test]
fn of_several_the_best_approved_one_wins() {
    let fleet = [Writer::new(MOST), Writer::new(GOOD), Writer::new(BETTER), Writer::new(BAD)];
    let host = several(SCORE, 4, &fleet);
    assert_eq!(run(&host), Ended::Approved(2));
    assert_eq!(*host.writes.borrow(), [[0, 1, 2, 3]]);
    let two = several(SCORE, 2, &fleet);
    assert_eq!(run(&two), Ended::Approved(1), "an approval is better than a correction");
}

#[test]
fn of_several_the_longest_correction_is_next() {
    let fleet = [Writer::new(HALF), Writer::new(BAD), Writer::new(MOST), Writer::new(HALF)];
    assert_eq!(run(&several(SCORE, 4, &fleet)), Ended::Corrected(2, 3));
    assert_eq!(run(&several(SCORE, 2, &fleet)), Ended::Corrected(0, 2));
    // Whether it looks better than the others or worse.
    for bad in [-6.5, -20.0] {
        let long = Writer::new(&[-0.1, -0.1, -0.1, bad]);
        assert_eq!(run(&several(SCORE, 2, &[Writer::new(HALF), long.clone()])), Ended::Corrected(1, 3));
        assert_eq!(run(&several(SCORE, 2, &[long, Writer::new(HALF)])), Ended::Corrected(0, 3));
    }
    assert_eq!(run(&several(SCORE, 2, &[Writer::new(BAD), Writer::new(BAD)])), Ended::Rewritten);
}

#[test]
fn judgements_stop_at_the_first_approval() {
    let fleet = [Writer::new(GOOD).judged(Judgement::Reject), Writer::new(GOOD), Writer::new(BETTER)];
    let host = several(JUDGE, 3, &fleet);
    assert_eq!(run(&host), Ended::Approved(1), "the first approved one");
    assert_eq!(*host.asked.borrow(), [0, 1]);
    let host = several(BOTH, 3, &fleet);
    assert_eq!(run(&host), Ended::Approved(2), "the best looking one is judged first");
    assert_eq!((host.scored.borrow().len(), host.asked.borrow().as_slice()), (3, [2].as_slice()));
}

#[test]
fn lost_members_are_replaced() {
    let host = Simulation::new(SCORE, &[Writer::lost(), Writer::lost(), Writer::new(GOOD)]);
    assert_eq!(run(&host), Ended::Approved(0), "candidates are numbered as they come, not as members are");
    assert_eq!(*host.writes.borrow(), [[0], [1], [2]]);
    let fleet = [Writer::new(BAD), Writer::lost(), Writer::lost(), Writer::new(GOOD), Writer::new(BETTER)];
    let host = several(SCORE, 3, &fleet);
    assert_eq!(run(&host), Ended::Approved(2));
    assert_eq!(*host.writes.borrow(), [vec![0, 1, 2], vec![3, 4]]);
}

#[test]
fn where_too_few_are_there_those_are_enough() {
    let host = several(SCORE, 3, &[Writer::lost(), Writer::new(GOOD)]);
    assert_eq!(run(&host), Ended::Approved(0));
    assert_eq!(*host.writes.borrow(), [[0, 1]]);
}

#[test]
fn where_nobody_is_there_the_reviewer_answers() {
    assert_eq!(run(&Simulation::new(SCORE, &[])), Ended::Rewritten);
    let host = several(BOTH, 2, &[Writer::lost(), Writer::lost(), Writer::lost()]);
    assert_eq!(run(&host), Ended::Rewritten);
    assert_eq!(*host.writes.borrow(), [vec![0, 1], vec![2]]);
}

#[test]
fn busy_members_wait_for_idle_ones_to_be_lost() {
    let host =
        Simulation::new(SCORE, &[Writer { busy: 2, ..Writer::new(GOOD) }, Writer::lost(), Writer::lost()]);
    assert_eq!(run(&host), Ended::Approved(0));
    assert_eq!(*host.writes.borrow(), [[1], [2], [0]]);
}

#[test]
fn a_rejected_answer_is_tried_again_as_often_as_the_script_wants() {
    let fleet = [Writer::new(BAD), Writer { characters: 0, ..Writer::new(BAD) }, Writer::new(GOOD)];
    for (tries, ended, writes) in [
        (0, Ended::Rewritten, 1),
        (1, Ended::Rewritten, 2),
        (2, Ended::Approved(2), 3),
        (9, Ended::Approved(2), 3),
    ] {
        let mut host = Simulation::new(BOTH, &fleet);
        host.settings = Settings::default().with("max_retries", tries);
        assert_eq!(run(&host), ended, "{tries}");
        assert_eq!(host.writes.borrow().len(), writes, "{tries}");
    }
    let mut host = Simulation::new(SCORE, &[Writer::new(BAD), Writer::new(BAD)]);
    host.settings = Settings::default().with("max_retries", 9);
    assert_eq!(run(&host), Ended::Rewritten, "nobody is left");
    let mut host = Simulation::new(SCORE, &[Writer::new(HALF), Writer::new(GOOD)]);
    host.settings = Settings::default().with("max_retries", 9);
    assert_eq!(run(&host), Ended::Corrected(0, 2), "a correction is no rejection");
}

#[test]
fn a_lost_member_costs_no_try() {
    let mut host = Simulation::new(SCORE, &[Writer::new(BAD), Writer::lost(), Writer::new(GOOD)]);
    host.settings = Settings::default().with("max_retries", 1);
    assert_eq!(run(&host), Ended::Approved(1));
}

#[test]
fn an_error_in_writing_means_that_nobody_is_there() {
    for fault in [Fault::Refused, Fault::Backend] {
        let mut host = Simulation::new(SCORE, &[Writer::new(GOOD), Writer::new(GOOD)]);
        host.write_fails = Some((0, fault));
        assert_eq!(run(&host), Ended::Rewritten);
        assert_eq!(host.warnings.borrow().len(), 1);
        assert_eq!(host.writes.borrow().len(), 1, "nobody knows which number the next one would have");
        // What came before it counts.
        let mut host = several(SCORE, 2, &[Writer::new(GOOD), Writer::lost(), Writer::new(BETTER)]);
        host.write_fails = Some((1, fault));
        assert_eq!(run(&host), Ended::Approved(0));
    }
}

#[test]
fn a_policy_rules_in_place_of_the_gate() {
    let table: [(simulation::Policy, &[f32], Ended); 3] = [
        (|_, _| Verdict::Approve, BAD, Ended::Approved(0)),
        (|_, review| Verdict::Correct(review.scores.len() as u32), GOOD, Ended::Corrected(0, 4)),
        (|_, _| Verdict::Reject, BETTER, Ended::Rewritten),
    ];
    for (policy, scores, ended) in table {
        let mut host = Simulation::new(SCORE, &[Writer::new(scores)]);
        host.policy = Some(policy);
        assert_eq!(run(&host), ended);
        assert_eq!(host.ruled.get(), 1);
    }
}

#[test]
fn a_policy_sees_the_whole_review_even_where_the_scores_are_bad() {
    let believes: simulation::Policy = |_, review: &Review| match review.judgement {
        Some(Judgement::Approve) => Verdict::Approve,
        _ => Verdict::Reject,
    };
    let mut host = several(BOTH, 2, &[Writer::new(BAD).judged(Judgement::Reject), Writer::new(BAD)]);
    host.policy = Some(believes);
    assert_eq!(run(&host), Ended::Approved(1));
    assert_eq!(*host.asked.borrow(), [0, 1]);
    assert_eq!(host.ruled.get(), 2);
}

#[test]
fn a_policy_cannot_correct_what_is_not_there() {
    let policies: [simulation::Policy; 3] =
        [|_, _| Verdict::Correct(0), |_, _| Verdict::Correct(5), |_, _| Verdict::Correct(u32::MAX)];
    for policy in policies {
        for ways in [SCORE, BOTH] {
            let mut host = Simulation::new(ways, &[Writer::new(GOOD)]);
            host.policy = Some(policy);
            assert_eq!(run(&host), Ended::Rewritten);
        }
    }
    let mut host = Simulation::new(JUDGE, &[Writer::new(GOOD)]);
    host.policy = Some(|_, _| Verdict::Correct(1));
    assert_eq!(run(&host), Ended::Rewritten, "it has no scores");
}

#[test]
fn no_policy_is_asked_about_what_failed_its_review() {
    for scores in [Ok(Vec::new()), Err(Fault::Backend)] {
        let mut host = Simulation::new(SCORE, &[Writer { scores, ..Writer::new(GOOD) }]);
        host.policy = Some(|_, _| Verdict::Approve);
        assert_eq!(run(&host), Ended::Rewritten);
        assert_eq!(host.ruled.get(), 0);
    }
    let mut host = Simulation::new(BOTH, &[Writer { judgement: Err(Fault::Backend), ..Writer::new(GOOD) }]);
    host.policy = Some(|_, _| Verdict::Approve);
    assert_eq!(run(&host), Ended::Rewritten);
}

#[test]
fn a_verdict_that_the_host_refuses_is_a_rejection() {
    for scores in [GOOD, HALF] {
        let mut host = Simulation::new(SCORE, &[Writer::new(scores)]);
        host.end_fails = Some(Fault::Refused);
        assert_eq!(run(&host), Ended::Rewritten);
        assert!(host.warnings.borrow()[0].contains("it was too much"));
    }
}

#[test]
fn an_end_that_breaks_is_the_hosts_to_mend() {
    let mut host = Simulation::new(SCORE, &[Writer::new(GOOD)]);
    host.end_fails = Some(Fault::Backend);
    assert!(matches!(Drive::new(&host).run(), Err(Error::Backend(_))));
    assert_eq!(host.ended.get(), None, "some of it may have reached the client");
    let mut host = Simulation::new(SCORE, &[Writer::new(BAD)]);
    host.rewrite_fails = Some(Fault::Backend);
    assert!(matches!(Drive::new(&host).run(), Err(Error::Backend(_))));
}

#[test]
fn a_request_that_is_over_is_left_alone() {
    let over = Fault::Finished;
    let fine = Writer::new(GOOD);
    let mut hosts = vec![
        Simulation::new(SCORE, &[Writer { scores: Err(over), ..fine.clone() }, fine.clone()]),
        Simulation::new(BOTH, &[Writer { judgement: Err(over), ..fine.clone() }, fine.clone()]),
    ];
    let mut writing = Simulation::new(SCORE, &[fine.clone(), fine.clone()]);
    writing.write_fails = Some((0, over));
    let mut ending = Simulation::new(SCORE, &[fine]);
    ending.end_fails = Some(over);
    hosts.extend([writing, ending]);
    for host in hosts {
        assert!(matches!(Drive::new(&host).run(), Err(Error::Finished)));
        assert_eq!((host.ended.get(), host.writes.borrow().len()), (None, 1));
        assert!(host.warnings.borrow().is_empty(), "that is no failure");
    }
}

/// `good` tokens that are fine, and then `bad` ones.
fn long(good: usize, bad: usize) -> Writer {
    Writer::new(&[vec![-0.1; good], vec![-9.0; bad]].concat())
}

#[test]
fn the_beginning_of_a_good_answer_goes_out_while_the_rest_is_reviewed() {
    let (end, host) = one(SCORE, long(150, 0));
    assert_eq!(end, Ended::Approved(0));
    assert_eq!(*host.passed.borrow(), [(0, 32), (0, 64), (0, 128)]);
    // What the client has cannot be rejected any more, however little of the whole it is.
    let (end, host) = one(SCORE, long(40, 200));
    assert_eq!((end, host.passed.borrow().len()), (Ended::Corrected(0, 40), 1));
    // A beginning that is not good is not passed, and the whole decides.
    let (end, host) = one(SCORE, long(20, 200));
    assert_eq!((end, host.passed.borrow().len()), (Ended::Rewritten, 0));
}

#[test]
fn nothing_goes_out_early_where_more_than_scores_decide() {
    let mut off = Simulation::new(SCORE, &[long(150, 0)]);
    off.settings = Settings::default().with("stream", false);
    let mut policy = Simulation::new(SCORE, &[long(150, 0)]);
    policy.policy = Some(|_, _| Verdict::Approve);
    let both = Simulation::new(BOTH, &[long(150, 0)]);
    let two = several(SCORE, 2, &[long(150, 0), long(150, 0)]);
    let mut refused = Simulation::new(SCORE, &[long(150, 0)]);
    refused.pass_fails = Some(Fault::Refused);
    for host in [off, policy, both, two, refused] {
        assert_eq!(run(&host), Ended::Approved(0));
        assert!(host.passed.borrow().is_empty());
    }
}
