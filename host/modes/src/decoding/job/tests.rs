use std::sync::Arc;
use std::time::{Duration, Instant};

use tightwad_core::testing::{Events, FakeModel, prepare, tokens};
use tightwad_core::{Clock, OpenedTarget, Output, Request};

use super::*;
use crate::decoding::race::{RaceLimits, race};

const ANSWER: &str = "one two three";

/// A job on `target` with `drafters`, and the events that its client receives.
fn job_with(target: &FakeModel, drafters: &[FakeModel], max_tokens: u32) -> (Job, Events) {
    let request = Arc::new(Request { max_tokens: Some(max_tokens), ..Request::default() });
    let opened = OpenedTarget {
        session: Box::new(target.target(0, max_tokens)),
        cached_tokens: 0,
        prepared: prepare(request),
    };
    let (sink, events) = Events::new();
    let output = Output::new(&opened, sink);
    let open = |model: &FakeModel| (model.name.clone(), Some(Box::new(model.drafter()) as Box<dyn Drafter>));
    let drafters = drafters.iter().map(open).collect();
    (Job::new(opened.session, drafters, output, Settings::default(), Arc::default()), events)
}

fn job(drafters: &[FakeModel]) -> (Job, Events) {
    job_with(&FakeModel::new("target", ANSWER), drafters, 100)
}

fn model(name: &str, answer: &str) -> FakeModel {
    FakeModel::new(name, answer)
}

#[tokio::test]
async fn verification_commits_the_equal_tokens_and_one_more() {
    let (mut job, mut events) = job(&[]);
    let committed = job.verify(tokens("one six").into()).await.unwrap();
    assert_eq!(committed.tokens, tokens("one t"));
    assert_eq!((committed.accepted, committed.rows, committed.finished), (4, 8, false));
    assert_eq!(events.text(), "one t");
    let JobResult { tally, .. } = job.finish().await;
    assert_eq!((tally.rounds, tally.drafted, tally.accepted), (1, 7, 4));
}

#[tokio::test]
async fn tree_verification_commits_the_longest_equal_path() {
    let (mut job, _events) = job(&[]);
    let draft = Draft::from_paths([tokens("once"), tokens("one!"), tokens("two")]);
    assert_eq!(job.verify(draft).await.unwrap().tokens, tokens("one "));
    assert_eq!(job.finish().await.tally.paths, 3);
}

#[tokio::test]
async fn verification_in_progress_is_committed_when_the_job_finishes() {
    let (mut job, mut events) = job(&[]);
    assert!(job.begin_verify(tokens("one").into()));
    let result = job.finish().await;
    assert_eq!(result.output.tokens(), tokens("one "));
    assert_eq!(events.text(), "one ");
    assert!(result.target.is_some() && result.failure.is_none());
}

#[tokio::test]
async fn verification_in_progress_blocks_calls_that_need_the_target() {
    let (mut job, _events) = job(&[]);
    assert!(job.begin_verify(Draft::default()));
    assert!(!job.begin_verify(Draft::default()));
    assert!(job.verify(Draft::default()).await.is_none());
    assert!(job.decode(4).await.is_none());
    assert!(job.accept_unverified(&tokens("x"), false).await.is_none());
    assert_eq!(job.end_verify().await.unwrap().tokens, tokens("o"));
    assert!(job.end_verify().await.is_none());
}

#[tokio::test]
async fn draft_is_cut_to_leave_room_for_the_targets_token() {
    let (mut job, _events) = job_with(&model("target", ANSWER), &[], 4);
    let committed = job.verify(tokens("one two").into()).await.unwrap();
    assert_eq!((committed.tokens, committed.finished), (tokens("one "), true));
}

#[tokio::test]
async fn lost_target_ends_the_job_with_its_error() {
    let (mut job, mut events) = job_with(&model("target", ANSWER).failing_after(4), &[], 100);
    assert!(!job.verify(tokens("one").into()).await.unwrap().finished);
    assert!(job.decode(8).await.unwrap().finished && job.is_over());
    let result = job.finish().await;
    assert_eq!(result.failure.unwrap().to_string(), "target failed: it is lost");
    assert_eq!(events.text(), "one ");
}

#[tokio::test]
async fn disconnected_client_cancels_the_job() {
    let (mut job, events) = job(&[]);
    drop(events);
    assert!(job.decode(8).await.unwrap().finished);
    assert!(matches!(job.finish().await.failure, Some(BackendError::Cancelled)));
}

#[tokio::test]
async fn request_is_charged_the_cost_of_its_own_rows() {
    let now = Instant::now();
    let target = FakeModel { cost: Duration::from_millis(8), ..model("target", ANSWER) };
    let (job, _events) = job_with(&target, &[], 100);
    let mut job = job.with_clock(Clock::from_fn(move || now));
    assert_eq!(job.verify(tokens("on").into()).await.unwrap().cost, Duration::from_millis(8));
    assert_eq!(job.decode(3).await.unwrap().cost, Duration::from_millis(24));
}

#[tokio::test]
async fn proposals_follow_the_output_and_the_tokens_ahead() {
    let (mut job, _events) = job(&[model("drafter", ANSWER)]);
    job.verify(tokens("one").into()).await.unwrap();
    assert_eq!(job.begin_propose(0, &tokens("tw"), 3, 0.0), Ok(()));
    assert_eq!(job.begin_propose(0, &[], 3, 0.0), Err(BeginError::Busy));
    assert_eq!(job.begin_propose(1, &[], 3, 0.0), Err(BeginError::UnknownDrafter));
    let (proposals, _) = job.end_propose(0).await.unwrap();
    assert_eq!(proposals.iter().map(|proposal| proposal.token).collect::<Vec<_>>(), tokens("o t"));
    assert_eq!(job.finish().await.tally.wasted, 3);
}

#[tokio::test]
async fn failed_drafter_returns_its_error_once_and_then_nothing() {
    let (mut job, _events) = job(&[model("drafter", ANSWER).failing_after(0)]);
    job.begin_propose(0, &[], 3, 0.0).unwrap();
    assert!(job.end_propose(0).await.is_err());
    job.begin_propose(0, &[], 3, 0.0).unwrap();
    assert!(job.end_propose(0).await.unwrap().0.is_empty());
    assert!(!job.is_over(), "the target continues without the drafter");
}

#[tokio::test]
async fn race_ends_with_its_quorum_and_counts_late_drafters() {
    let late = FakeModel { stuck: true, ..model("late", ANSWER) };
    let (mut job, _events) = job(&[model("one", ANSWER), late, model("other", "ONE")]);
    let limits =
        RaceLimits { quorum: 2, grace_period: Duration::from_millis(5), timeout: Duration::from_secs(60) };
    let drafts = race(&mut job, &[0, 1, 2], 4, 0.0, limits).await;
    let mut drafters: Vec<usize> = drafts.iter().map(|draft| draft.drafter).collect();
    drafters.sort_unstable();
    assert_eq!(drafters, [0, 2]);
    job.verify(tokens("one").into()).await.unwrap();
    // The late drafter is still busy, so the next race leaves it out.
    assert_eq!(race(&mut job, &[1], 4, 0.0, limits).await.len(), 0);
    let races = job.finish().await.races;
    let counts: Vec<_> = races.iter().map(|(_, stats)| (stats.drafts, stats.misses, stats.wins)).collect();
    assert_eq!(counts, [(1, 0, 1), (0, 1, 0), (1, 0, 0)]);
}

#[tokio::test]
async fn unverified_tokens_are_accepted_only_if_the_request_allows_it() {
    let grant = |allowed: bool| UnverifiedGrant {
        allowed,
        agreement: Arc::default(),
        rule: Arc::default(),
        request_rule: "majority".to_owned(),
        policy: None,
    };
    for (allowed, accepted) in [(false, 0), (true, 3)] {
        let (job, mut events) = job(&[]);
        let mut job = job.with_grant(grant(allowed));
        assert_eq!(job.accept_unverified(&tokens("abc"), true).await, Some((accepted, false)));
        assert_eq!(events.text(), &"abc"[..accepted as usize]);
        let result = job.finish().await;
        assert_eq!((result.tally.unverified, result.audit_spans.len()), (accepted, usize::from(allowed)));
    }
    let (mut job, _events) = job(&[]);
    assert_eq!(
        job.accept_unverified(&tokens("abc"), false).await,
        Some((0, false)),
        "without a grant, nothing is accepted"
    );
}
