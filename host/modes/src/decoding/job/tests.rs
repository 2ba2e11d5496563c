use std::sync::Arc;
use std::time::{Duration, Instant};

use tightwad_core::testing::{Events, FakeModel, task, tokens};
use tightwad_core::{Clock, OpenTarget, Output, Request};

use super::*;
use crate::decoding::race::{RaceEnd, race};

const ANSWER: &str = "one two three";

/// A job on `target` with `drafters`, and the events that its client sees.
fn job_with(target: &FakeModel, drafters: &[FakeModel], max_tokens: u32) -> (Job, Events) {
    let request = Arc::new(Request { max_tokens: Some(max_tokens), ..Request::default() });
    let opened =
        OpenTarget { session: Box::new(target.target(0, max_tokens)), cached: 0, task: task(request) };
    let (sink, events) = Events::new();
    let output = Output::new(&opened, sink);
    let open = |model: &FakeModel| (model.name.clone(), Some(Box::new(model.drafter()) as Box<dyn Drafter>));
    let drafters = drafters.iter().map(open).collect();
    (Job::new(opened.session, drafters, output, "{}".to_owned(), Arc::default()), events)
}

fn job(drafters: &[FakeModel]) -> (Job, Events) {
    job_with(&FakeModel::new("target", ANSWER), drafters, 100)
}

fn model(name: &str, answer: &str) -> FakeModel {
    FakeModel::new(name, answer)
}

#[tokio::test]
async fn a_verification_commits_what_agrees_and_one_token_more() {
    let (mut job, mut events) = job(&[]);
    let committed = job.verify(tokens("one six").into()).await.unwrap();
    assert_eq!(committed.tokens, tokens("one t"));
    assert_eq!((committed.accepted, committed.rows, committed.finished), (4, 8, false));
    assert_eq!(events.text(), "one t");
    let Settled { tally, .. } = job.settle().await;
    assert_eq!((tally.rounds, tally.drafted, tally.accepted), (1, 7, 4));
}

#[tokio::test]
async fn a_tree_commits_the_longest_path_that_agrees() {
    let (mut job, _events) = job(&[]);
    let draft = Draft::of([tokens("once"), tokens("one!"), tokens("two")]);
    assert_eq!(job.verify(draft).await.unwrap().tokens, tokens("one "));
    assert_eq!(job.settle().await.tally.paths, 3);
}

#[tokio::test]
async fn what_nobody_waits_for_is_committed_when_the_job_is_settled() {
    let (mut job, mut events) = job(&[]);
    assert!(job.begin_verify(tokens("one").into()));
    let settled = job.settle().await;
    assert_eq!(settled.output.tokens(), tokens("one "));
    assert_eq!(events.text(), "one ");
    assert!(settled.target.is_some() && settled.failure.is_none());
}

#[tokio::test]
async fn a_verification_under_way_refuses_everything_that_needs_the_target() {
    let (mut job, _events) = job(&[]);
    assert!(job.begin_verify(Draft::default()));
    assert!(!job.begin_verify(Draft::default()));
    assert!(job.verify(Draft::default()).await.is_none());
    assert!(job.decode(4).await.is_none());
    assert!(job.accept(&tokens("x"), false).await.is_none());
    assert_eq!(job.end_verify().await.unwrap().tokens, tokens("o"));
    assert!(job.end_verify().await.is_none());
}

#[tokio::test]
async fn a_draft_leaves_room_for_the_target_s_own_token() {
    let (mut job, _events) = job_with(&model("target", ANSWER), &[], 4);
    let committed = job.verify(tokens("one two").into()).await.unwrap();
    assert_eq!((committed.tokens, committed.finished), (tokens("one "), true));
}

#[tokio::test]
async fn a_lost_target_ends_the_job_with_its_error() {
    let (mut job, mut events) = job_with(&model("target", ANSWER).failing_after(4), &[], 100);
    assert!(!job.verify(tokens("one").into()).await.unwrap().finished);
    assert!(job.decode(8).await.unwrap().finished && job.is_over());
    let settled = job.settle().await;
    assert_eq!(settled.failure.unwrap().to_string(), "target failed: it is lost");
    assert_eq!(events.text(), "one ");
}

#[tokio::test]
async fn a_client_that_leaves_cancels_the_job() {
    let (mut job, events) = job(&[]);
    drop(events);
    assert!(job.decode(8).await.unwrap().finished);
    assert!(matches!(job.settle().await.failure, Some(BackendError::Cancelled)));
}

#[tokio::test]
async fn a_request_is_charged_the_cost_of_its_own_rows() {
    let now = Instant::now();
    let target = FakeModel { cost: Duration::from_millis(8), ..model("target", ANSWER) };
    let (job, _events) = job_with(&target, &[], 100);
    let mut job = job.timed_by(Clock::of(move || now));
    assert_eq!(job.verify(tokens("on").into()).await.unwrap().took, Duration::from_millis(8));
    assert_eq!(job.decode(3).await.unwrap().took, Duration::from_millis(24));
}

#[tokio::test]
async fn proposals_follow_the_output_and_what_is_ahead_of_it() {
    let (mut job, _events) = job(&[model("drafter", ANSWER)]);
    job.verify(tokens("one").into()).await.unwrap();
    assert_eq!(job.begin_propose(0, &tokens("tw"), 3, 0.0), Begun::Yes);
    assert_eq!(job.begin_propose(0, &[], 3, 0.0), Begun::Busy);
    assert_eq!(job.begin_propose(1, &[], 3, 0.0), Begun::Unknown);
    let (proposals, _) = job.end_propose(0).await.unwrap();
    assert_eq!(proposals.iter().map(|one| one.token).collect::<Vec<_>>(), tokens("o t"));
    assert_eq!(job.settle().await.tally.wasted, 3);
}

#[tokio::test]
async fn a_broken_drafter_says_so_once_and_then_nothing() {
    let (mut job, _events) = job(&[model("drafter", ANSWER).failing_after(0)]);
    job.begin_propose(0, &[], 3, 0.0);
    assert!(job.end_propose(0).await.is_err());
    job.begin_propose(0, &[], 3, 0.0);
    assert!(job.end_propose(0).await.unwrap().0.is_empty());
    assert!(!job.is_over(), "the target goes on without it");
}

#[tokio::test]
async fn a_race_ends_with_its_quorum_and_counts_who_was_late() {
    let late = FakeModel { stuck: true, ..model("late", ANSWER) };
    let (mut job, _events) = job(&[model("one", ANSWER), late, model("other", "ONE")]);
    let end = RaceEnd { quorum: 2, grace: Duration::from_millis(5), longest: Duration::from_secs(60) };
    let answers = race(&mut job, &[0, 1, 2], 4, 0.0, end).await;
    let mut drafters: Vec<usize> = answers.iter().map(|answer| answer.drafter).collect();
    drafters.sort_unstable();
    assert_eq!(drafters, [0, 2]);
    job.verify(tokens("one").into()).await.unwrap();
    // The late one is still busy, so the next race is without it.
    assert_eq!(race(&mut job, &[1], 4, 0.0, end).await.len(), 0);
    let raced = job.settle().await.raced;
    let counts: Vec<_> = raced.iter().map(|(_, raced)| (raced.answers, raced.misses, raced.wins)).collect();
    assert_eq!(counts, [(1, 0, 1), (0, 1, 0), (1, 0, 0)]);
}

#[tokio::test]
async fn tokens_are_accepted_without_the_target_only_where_the_request_allows_it() {
    let grant = |allowed: bool| Skipping {
        allowed,
        agreement: Arc::default(),
        rule: Arc::default(),
        own_rule: "majority".to_owned(),
        policy: None,
    };
    for (allowed, accepted) in [(false, 0), (true, 3)] {
        let (job, mut events) = job(&[]);
        let mut job = job.skipping(grant(allowed));
        assert_eq!(job.accept(&tokens("abc"), true).await, Some((accepted, false)));
        assert_eq!(events.text(), &"abc"[..accepted as usize]);
        let settled = job.settle().await;
        assert_eq!((settled.tally.unverified, settled.audits.len()), (accepted, usize::from(allowed)));
    }
    let (mut job, _events) = job(&[]);
    assert_eq!(job.accept(&tokens("abc"), false).await, Some((0, false)), "no grant, nothing accepted");
}
