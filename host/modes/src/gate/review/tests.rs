use std::time::Duration;

use tightwad_core::CacheSpec;
use tightwad_core::testing::{Events, FakeModel};

use super::*;
use crate::gate::passing::{correct, pass, settle};

const RIGHT: &str = "the answer is 42";
const WRONG: &str = "the answer is 41";

fn spec(fleet: &[FakeModel], reviewer: &FakeModel) -> TaskSpec {
    let member = |model: &FakeModel| (Arc::new(model.clone()) as SharedBackend, Arc::default());
    TaskSpec {
        fleet: fleet.iter().map(member).collect(),
        reviewer: Arc::new(reviewer.clone()),
        ways: Ways { score: true, judge: true },
        prompt: "Q: {question} A: {answer}".to_owned(),
        settings: "{}".to_owned(),
        policy: None,
        on_lost: OnReviewerLost::Error,
        cache: None,
    }
}

fn task_with(spec: TaskSpec) -> (ReviewTask, Events) {
    let (sink, events) = Events::new();
    (ReviewTask::new(spec, Arc::new(Request::default()), sink), events)
}

/// A task whose one member wrote `answer`, before a reviewer who would answer [`RIGHT`].
async fn written(answer: &str) -> (ReviewTask, Events) {
    let member = FakeModel::new("small", answer);
    let (mut task, events) = task_with(spec(&[member], &FakeModel::new("big", RIGHT)));
    assert_eq!(task.write(&[0], 1).await, 0..1);
    (task, events)
}

#[tokio::test]
async fn an_approved_candidate_reaches_the_client_as_it_is() {
    let (mut task, mut events) = written(WRONG).await;
    assert_eq!(events.text(), "", "nothing is released before a verdict");
    assert!(task.approve(0).await);
    assert_eq!(events.text(), WRONG);
    let (outcome, tally) = settle(task).await.unwrap();
    assert_eq!((tally.ending, tally.writer.as_deref()), (Some(Ending::Approved), Some("small")));
    assert_eq!((tally.kept, outcome.usage.completion_tokens), (1.0, 16));
}

#[tokio::test]
async fn a_correction_keeps_a_prefix_and_the_reviewer_goes_on() {
    let (mut task, mut events) = written(WRONG).await;
    let ranks: Vec<u32> = task.score(0, 100).await.unwrap().iter().map(|score| score.rank).collect();
    let agreed = ranks.iter().position(|rank| *rank > 0).unwrap();
    assert_eq!(agreed, 15);
    assert!(correct(&mut task, 0, agreed).await);
    assert_eq!(events.text(), RIGHT);
    let (_, tally) = settle(task).await.unwrap();
    assert_eq!((tally.ending, tally.decoded), (Some(Ending::Corrected), 1));
}

#[tokio::test]
async fn a_rejected_candidate_is_replaced_by_the_reviewer_s_own_answer() {
    let (task, mut events) = written(WRONG).await;
    let (_, tally) = settle(task).await.unwrap();
    assert_eq!((tally.ending, events.text()), (Some(Ending::Rejected), RIGHT.to_owned()));
}

#[tokio::test]
async fn what_was_released_early_cannot_be_taken_back() {
    let fleet = [FakeModel::new("small", WRONG), FakeModel::new("other", "no idea")];
    let (mut task, mut events) = task_with(spec(&fleet, &FakeModel::new("big", RIGHT)));
    task.write(&[0, 1], 2).await;
    let wrong = (0..2).find(|index| task.written[*index].text == WRONG).unwrap();
    task.score(wrong, 100).await.unwrap();
    assert!(pass(&mut task, wrong, 100).await.is_err(), "it has no 100 tokens");
    pass(&mut task, wrong, 11).await.unwrap();
    assert_eq!(events.text(), "the answer ");
    assert!(!task.approve(1 - wrong).await, "the client has the beginning of another candidate");
    let (_, tally) = settle(task).await.unwrap();
    assert_eq!(events.text(), "is 42");
    assert_eq!((tally.ending, tally.passed), (Some(Ending::Corrected), 11));
}

#[tokio::test]
async fn members_that_are_lost_are_passed_over() {
    let fleet = [FakeModel::new("lost", "x").failing_after(0), FakeModel::new("small", RIGHT)];
    let (mut task, _events) = task_with(spec(&fleet, &FakeModel::new("big", RIGHT)));
    assert_eq!(task.write(&[0, 1, 7], 3).await, 0..1);
    assert_eq!(task.written[0].member, 1);
}

#[tokio::test]
async fn a_lost_reviewer_ends_the_request_as_the_script_wants_it() {
    let lost = FakeModel::new("big", RIGHT).failing_after(0);
    for (on_lost, text) in [(OnReviewerLost::Error, ""), (OnReviewerLost::PassLabelled, WRONG)] {
        let spec = TaskSpec { on_lost, ..spec(&[FakeModel::new("small", WRONG)], &lost) };
        let (mut task, mut events) = task_with(spec);
        task.write(&[0], 1).await;
        assert!(task.score(0, 4).await.is_err());
        task.pass_unreviewed().await;
        let settled = settle(task).await;
        assert_eq!((settled.is_ok(), events.text().as_str()), (!text.is_empty(), text));
        if let Ok((_, tally)) = settled {
            assert_eq!(tally.ending, Some(Ending::Unreviewed));
        }
    }
}

#[tokio::test]
async fn a_judgement_is_the_object_that_was_asked_for_or_nothing() {
    for (said, word) in [("{\"verdict\": \"approve\"}", Some("approve")), ("I approve", None)] {
        let fleet = [FakeModel::new("small", WRONG)];
        let (mut task, _events) = task_with(spec(&fleet, &FakeModel::new("judge", said)));
        task.write(&[0], 1).await;
        assert_eq!(task.ask(0).await.unwrap().as_deref(), word, "{said}");
    }
}

#[tokio::test]
async fn the_same_answer_is_not_reviewed_twice() {
    let cache = Arc::new(ReviewCache::new(CacheSpec {
        lives: Duration::from_secs(60),
        sampled: true,
        ..CacheSpec::default()
    }));
    let reviewer = FakeModel::new("big", RIGHT);
    for cached in [0, 1] {
        let spec =
            TaskSpec { cache: Some(cache.clone()), ..spec(&[FakeModel::new("small", WRONG)], &reviewer) };
        let (mut task, _events) = task_with(spec);
        task.write(&[0], 1).await;
        task.score(0, 100).await.unwrap();
        assert_eq!(task.tally.cached, cached);
    }
}

#[tokio::test]
async fn a_client_that_leaves_cancels_the_task() {
    let (mut task, events) = written(WRONG).await;
    drop(events);
    task.approve(0).await;
    assert!(matches!(settle(task).await, Err(BackendError::Cancelled)));
}
