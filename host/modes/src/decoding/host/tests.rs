use std::sync::Arc;

use tightwad_core::testing::{Events, FakeModel, task, tokens};
use tightwad_core::{Drafter, OpenTarget, Output, Request};
use tightwad_sandbox::Limits;

use super::*;

/// What the host functions of a guest see: a job whose target answers "abcdef", with one drafter.
fn state(limits: Limits) -> (State<Job>, Events) {
    let model = FakeModel::new("target", "abcdef");
    let request = Arc::new(Request::default());
    let opened = OpenTarget { session: Box::new(model.target(0, 100)), cached: 0, task: task(request) };
    let (sink, events) = Events::new();
    let output = Output::new(&opened, sink);
    let drafter: Box<dyn Drafter> = Box::new(FakeModel::new("drafter", "abcdef").drafter());
    let drafters = vec![("drafter".to_owned(), Some(drafter))];
    let job = Job::new(opened.session, drafters, output, "{\"depth\": 3}".to_owned(), Arc::default());
    (State::detached("test@0.1.0", limits, job), events)
}

fn handle() -> Resource<JobHandle> {
    Resource::new_own(0)
}

/// The plain sentence by which a call was refused.
fn sentence<T: std::fmt::Debug>(answer: Answer<T>) -> String {
    match answer.unwrap() {
        Err(Error::Refused(sentence)) => sentence,
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn a_round_of_a_guest_commits_tokens() {
    let (mut state, mut events) = state(Limits::default());
    assert_eq!(state.settings(handle()).unwrap(), "{\"depth\": 3}");
    let draft = state.propose(handle(), 0, Vec::new(), 3, 0.5).await.unwrap().unwrap();
    let proposed: Vec<u32> = draft.proposals.iter().map(|one| one.token).collect();
    let commit = state.verify(handle(), proposed).await.unwrap().unwrap();
    assert_eq!((commit.tokens, commit.accepted, commit.finished), (tokens("abcd"), 3, false));
    let commit = state.decode(handle(), 10).await.unwrap().unwrap();
    assert_eq!((commit.tokens, commit.finished), (tokens("ef"), true));
    assert_eq!(events.text(), "abcdef");
}

#[tokio::test]
async fn nothing_can_be_asked_of_a_finished_job() {
    let (mut state, _events) = state(Limits::default());
    state.decode(handle(), 100).await.unwrap().unwrap();
    assert!(matches!(state.verify(handle(), Vec::new()).await.unwrap(), Err(Error::Finished)));
    assert!(matches!(state.decode(handle(), 1).await.unwrap(), Err(Error::Finished)));
    let proposed = state.propose(handle(), 0, Vec::new(), 1, 0.0).await.unwrap();
    assert!(matches!(proposed, Err(Error::Finished)));
}

#[tokio::test]
async fn calls_out_of_range_are_refused_with_the_range() {
    let (mut state, _events) = state(Limits::default());
    let long = vec![1; 257];
    assert!(sentence(state.verify(handle(), long.clone()).await).contains("at most 256 tokens, not 257"));
    assert!(sentence(state.verify_tree(handle(), vec![long]).await).contains("at most 256"));
    assert!(sentence(state.propose(handle(), 0, Vec::new(), 0, 0.0).await).contains("1 to 256"));
    assert!(sentence(state.propose(handle(), 7, Vec::new(), 1, 0.0).await).contains("no drafter 7"));
    assert!(sentence(state.decode(handle(), 0).await).contains("at least one token"));
}

#[tokio::test]
async fn a_pending_call_is_waited_for_once() {
    let (mut state, mut events) = state(Limits::default());
    let pending = state.begin_verify(handle(), tokens("ab")).unwrap().unwrap();
    assert!(sentence(state.verify(handle(), Vec::new()).await).contains("under way"));
    let again = Resource::new_borrow(pending.rep());
    assert_eq!(HostPendingCommit::wait(&mut state, pending).await.unwrap().unwrap().tokens, tokens("abc"));
    assert!(sentence(HostPendingCommit::wait(&mut state, again).await).contains("was waited for"));
    assert_eq!(events.text(), "abc");
}

#[tokio::test]
async fn a_verification_that_is_dropped_is_committed_all_the_same() {
    let (mut state, mut events) = state(Limits::default());
    let pending = state.begin_verify(handle(), tokens("ab")).unwrap().unwrap();
    HostPendingCommit::drop(&mut state, pending).await.unwrap();
    assert_eq!(events.text(), "abc");
    assert_eq!(state.verify(handle(), Vec::new()).await.unwrap().unwrap().tokens, tokens("d"));
}

#[tokio::test]
async fn a_note_that_is_too_long_is_not_kept() {
    let (mut state, _events) = state(Limits::default());
    state.remember(handle(), "short".to_owned()).unwrap();
    state.remember(handle(), "x".repeat(LONGEST_NOTE + 1)).unwrap();
    assert_eq!(HostJob::memory(&mut state, handle()).unwrap(), "short");
}

#[tokio::test]
async fn a_guest_that_calls_too_often_is_stopped() {
    let (mut state, _events) = state(Limits { calls: 2, ..Limits::default() });
    state.remaining(handle()).unwrap();
    state.remaining(handle()).unwrap();
    let error = state.remaining(handle()).unwrap_err();
    assert_eq!(error.to_string(), "out of host calls");
}
