use std::time::Duration;

use tightwad_core::CacheSpec;
use tightwad_core::testing::{Events, FakeModel};

use super::*;
use crate::gate::delivery::{correct, finish, release_prefix};

const RIGHT: &str = "the answer is 42";
const WRONG: &str = "the answer is 41";

fn spec(fleet: &[FakeModel], reviewer: &FakeModel) -> TaskSpec {
    let member = |model: &FakeModel| (Arc::new(model.clone()) as SharedBackend, Arc::default());
    TaskSpec {
        fleet: fleet.iter().map(member).collect(),
        reviewer: Arc::new(reviewer.clone()),
        review_methods: ReviewMethods { score: true, judge: true },
        judge_prompt: "Q: {question} A: {answer}".to_owned(),
        settings: Settings::default(),
        policy: None,
        on_reviewer_lost: OnReviewerLost::Error,
        cache: None,
    }
}

fn task_with(spec: TaskSpec) -> (ReviewTask, Events) {
    let (sink, events) = Events::new();
    (ReviewTask::new(spec, Arc::new(Request::default()), sink), events)
}

/// A task with the candidate `answer`, and a reviewer that would answer [`RIGHT`].
async fn task_with_candidate(answer: &str) -> (ReviewTask, Events) {
    let member = FakeModel::new("small", answer);
    let (mut task, events) = task_with(spec(&[member], &FakeModel::new("big", RIGHT)));
    assert_eq!(task.generate(&[0], 1).await, Ok(0..1));
    (task, events)
}

#[tokio::test]
async fn approved_candidate_reaches_the_client_unchanged() {
    let (mut task, mut events) = task_with_candidate(WRONG).await;
    assert_eq!(events.text(), "", "nothing is released before a verdict");
    assert!(task.approve(0).await);
    assert_eq!(events.text(), WRONG);
    let (outcome, tally) = finish(task).await.unwrap();
    assert_eq!((tally.verdict, tally.writer.as_deref()), (Some(FinalVerdict::Approved), Some("small")));
    assert_eq!((tally.kept_share, outcome.usage.completion_tokens), (1.0, 16));
}

#[tokio::test]
async fn correction_keeps_a_prefix_and_the_reviewer_continues() {
    let (mut task, mut events) = task_with_candidate(WRONG).await;
    let ranks: Vec<u32> = task.score(0, 100).await.unwrap().iter().map(|score| score.rank).collect();
    let first_wrong = ranks.iter().position(|rank| *rank > 0).unwrap();
    assert_eq!(first_wrong, 15);
    assert!(correct(&mut task, 0, first_wrong).await);
    assert_eq!(events.text(), RIGHT);
    let (_, tally) = finish(task).await.unwrap();
    assert_eq!((tally.verdict, tally.generated_tokens), (Some(FinalVerdict::Corrected), 1));
}

#[tokio::test]
async fn rejected_candidate_is_replaced_by_the_reviewers_answer() {
    let (task, mut events) = task_with_candidate(WRONG).await;
    let (_, tally) = finish(task).await.unwrap();
    assert_eq!((tally.verdict, events.text()), (Some(FinalVerdict::Rejected), RIGHT.to_owned()));
}

#[tokio::test]
async fn released_prefix_stays_in_the_answer() {
    let fleet = [FakeModel::new("small", WRONG), FakeModel::new("other", "no idea")];
    let (mut task, mut events) = task_with(spec(&fleet, &FakeModel::new("big", RIGHT)));
    task.generate(&[0, 1], 2).await.unwrap();
    let wrong = (0..2).find(|index| task.candidates[*index].text == WRONG).unwrap();
    task.score(wrong, 100).await.unwrap();
    assert!(release_prefix(&mut task, wrong, 100).await.is_err(), "the candidate has fewer than 100 tokens");
    release_prefix(&mut task, wrong, 11).await.unwrap();
    assert_eq!(events.text(), "the answer ");
    assert!(!task.approve(1 - wrong).await, "the client has the beginning of another candidate");
    let (_, tally) = finish(task).await.unwrap();
    assert_eq!(events.text(), "is 42");
    assert_eq!((tally.verdict, tally.released_tokens), (Some(FinalVerdict::Corrected), 11));
}

#[tokio::test]
async fn lost_member_writes_no_candidate() {
    let fleet = [FakeModel::new("lost", "x").failing_after(0), FakeModel::new("small", RIGHT)];
    let (mut task, _events) = task_with(spec(&fleet, &FakeModel::new("big", RIGHT)));
    assert_eq!(task.generate(&[0, 1], 3).await, Ok(0..1));
    assert_eq!(task.candidates[0].member, 1);
}

#[tokio::test]
async fn lost_reviewer_ends_the_request_as_the_script_says() {
    let lost = FakeModel::new("big", RIGHT).failing_after(0);
    for (on_reviewer_lost, text) in [(OnReviewerLost::Error, ""), (OnReviewerLost::PassUnreviewed, WRONG)] {
        let spec = TaskSpec { on_reviewer_lost, ..spec(&[FakeModel::new("small", WRONG)], &lost) };
        let (mut task, mut events) = task_with(spec);
        task.generate(&[0], 1).await.unwrap();
        assert!(task.score(0, 4).await.is_err());
        task.pass_unreviewed().await;
        let result = finish(task).await;
        assert_eq!((result.is_ok(), events.text().as_str()), (!text.is_empty(), text));
        if let Ok((_, tally)) = result {
            assert_eq!(tally.verdict, Some(FinalVerdict::Unreviewed));
        }
    }
}

#[tokio::test]
async fn judgement_is_the_requested_object_or_none() {
    for (reply, judgement) in [("{\"verdict\": \"approve\"}", Some("approve")), ("I approve", None)] {
        let fleet = [FakeModel::new("small", WRONG)];
        let (mut task, _events) = task_with(spec(&fleet, &FakeModel::new("judge", reply)));
        task.generate(&[0], 1).await.unwrap();
        assert_eq!(task.ask_reviewer(0).await.unwrap().as_deref(), judgement, "{reply}");
    }
}

#[tokio::test]
async fn equal_answer_is_reviewed_once() {
    let cache = Arc::new(ReviewCache::new(CacheSpec {
        max_age: Duration::from_secs(60),
        sampled: true,
        ..CacheSpec::default()
    }));
    let reviewer = FakeModel::new("big", RIGHT);
    for cached_reviews in [0, 1] {
        let spec =
            TaskSpec { cache: Some(cache.clone()), ..spec(&[FakeModel::new("small", WRONG)], &reviewer) };
        let (mut task, _events) = task_with(spec);
        task.generate(&[0], 1).await.unwrap();
        task.score(0, 100).await.unwrap();
        assert_eq!(task.tally.cached_reviews, cached_reviews);
    }
}

#[tokio::test]
async fn disconnected_client_cancels_the_task() {
    let (mut task, events) = task_with_candidate(WRONG).await;
    drop(events);
    task.approve(0).await;
    assert!(matches!(finish(task).await, Err(BackendError::Cancelled)));
}

#[tokio::test]
async fn members_are_distinct_and_write_a_limited_number_of_answers() {
    let fleet = [FakeModel::new("small", RIGHT), FakeModel::new("other", WRONG)];
    let (mut task, _events) = task_with(spec(&fleet, &FakeModel::new("big", RIGHT)));
    assert_eq!(task.generate(&[0, 7], 1).await, Err(GenerateError::UnknownMember(7)));
    assert_eq!(task.generate(&vec![1; 1_000_000], 1).await, Err(GenerateError::DuplicateMember(1)));
    assert_eq!(task.candidates.len(), 0);
    for _ in 0..8 {
        task.generate(&[0, 1], 2).await.unwrap();
    }
    assert_eq!(task.generate(&[0], 1).await, Err(GenerateError::TooMany { max: 16 }));
    assert_eq!(task.candidates.len(), 16);
}

#[tokio::test]
async fn reviewer_is_asked_once_about_a_candidate() {
    let fleet = [FakeModel::new("small", WRONG)];
    let judge = FakeModel::new("judge", "{\"verdict\": \"approve\"}");
    let (mut task, _events) = task_with(spec(&fleet, &judge));
    task.generate(&[0], 1).await.unwrap();
    task.ask_reviewer(0).await.unwrap();
    let generated = task.tally.generated_tokens;
    assert_eq!(task.ask_reviewer(0).await.unwrap().as_deref(), Some("approve"));
    assert_eq!(task.tally.generated_tokens, generated);
    let calls = std::iter::repeat_with(|| task.count_policy_call(0)).take_while(|allowed| *allowed).count();
    assert_eq!(calls, 8);
}
