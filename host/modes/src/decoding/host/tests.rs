use std::sync::Arc;

use tightwad_core::testing::{Events, FakeModel, prepare, tokens};
use tightwad_core::{Drafter, OpenedTarget, Output, Request};
use tightwad_sandbox::Limits;

use super::*;
use crate::settings::Settings;

/// The state of a guest's store: a job with a target that answers "abcdef", and one drafter.
fn state(limits: Limits) -> (State<Job>, Events) {
    let model = FakeModel::new("target", "abcdef");
    let request = Arc::new(Request::default());
    let opened = OpenedTarget {
        session: Box::new(model.target(0, 100)),
        cached_tokens: 0,
        prepared: prepare(request),
    };
    let (sink, events) = Events::new();
    let output = Output::new(&opened, sink);
    let drafter: Box<dyn Drafter> = Box::new(FakeModel::new("drafter", "abcdef").drafter());
    let drafters = vec![("drafter".to_owned(), Some(drafter))];
    let settings = Settings::from(serde_json::Map::from_iter([("depth".to_owned(), 3.into())]));
    let job = Job::new(opened.session, drafters, output, settings, Arc::default());
    (State::without_component("test@0.1.0", limits, job), events)
}

fn handle() -> Resource<JobHandle> {
    Resource::new_own(0)
}

/// The reason of a refused call.
fn refusal<T: std::fmt::Debug>(result: GuestResult<T>) -> String {
    match result.unwrap() {
        Err(Error::Refused(reason)) => reason,
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn guest_round_commits_tokens() {
    let (mut state, mut events) = state(Limits::default());
    let settings = state.settings(handle()).unwrap();
    assert!(matches!(&settings[..], [(key, SettingValue::Number(3.0))] if key == "depth"), "{settings:?}");
    let draft = state.propose(handle(), 0, Vec::new(), 3, 0.5).await.unwrap().unwrap();
    let proposed: Vec<u32> = draft.proposals.iter().map(|proposal| proposal.token).collect();
    let commit = state.verify(handle(), proposed).await.unwrap().unwrap();
    assert_eq!((commit.tokens, commit.accepted, commit.finished), (tokens("abcd"), 3, false));
    let commit = state.decode(handle(), 10).await.unwrap().unwrap();
    assert_eq!((commit.tokens, commit.finished), (tokens("ef"), true));
    assert_eq!(events.text(), "abcdef");
}

#[tokio::test]
async fn finished_job_refuses_further_calls() {
    let (mut state, _events) = state(Limits::default());
    state.decode(handle(), 100).await.unwrap().unwrap();
    assert!(matches!(state.verify(handle(), Vec::new()).await.unwrap(), Err(Error::Finished)));
    assert!(matches!(state.decode(handle(), 1).await.unwrap(), Err(Error::Finished)));
    let proposed = state.propose(handle(), 0, Vec::new(), 1, 0.0).await.unwrap();
    assert!(matches!(proposed, Err(Error::Finished)));
}

#[tokio::test]
async fn call_out_of_range_is_refused_with_the_range() {
    let (mut state, _events) = state(Limits::default());
    let long = vec![1; 257];
    assert!(refusal(state.verify(handle(), long.clone()).await).contains("at most 256 tokens, not 257"));
    assert!(refusal(state.verify_tree(handle(), vec![long]).await).contains("at most 256"));
    let empty_paths = vec![Vec::new(); 1_000_000];
    assert!(
        refusal(state.verify_tree(handle(), empty_paths).await).contains("at most 256 paths, not 1000000")
    );
    let limits = RaceLimits { quorum: 1, grace_period: 0, timeout: 0 };
    let race = state.race(handle(), vec![0; 1_000_000], 4, 0.0, limits).await;
    assert!(refusal(race).contains("at most the 1 drafters of the script, not 1000000"));
    assert!(refusal(state.propose(handle(), 0, Vec::new(), 0, 0.0).await).contains("1 to 256"));
    assert!(refusal(state.propose(handle(), 7, Vec::new(), 1, 0.0).await).contains("no drafter 7"));
    assert!(refusal(state.decode(handle(), 0).await).contains("at least one token"));
}

#[tokio::test]
async fn second_wait_for_a_pending_commit_is_refused() {
    let (mut state, mut events) = state(Limits::default());
    let pending = state.begin_verify(handle(), tokens("ab")).unwrap().unwrap();
    assert!(refusal(state.verify(handle(), Vec::new()).await).contains("in progress"));
    let again = Resource::new_borrow(pending.rep());
    assert_eq!(HostPendingCommit::wait(&mut state, pending).await.unwrap().unwrap().tokens, tokens("abc"));
    assert!(refusal(HostPendingCommit::wait(&mut state, again).await).contains("already waited for"));
    assert_eq!(events.text(), "abc");
}

#[tokio::test]
async fn dropped_verification_commits_its_tokens() {
    let (mut state, mut events) = state(Limits::default());
    let pending = state.begin_verify(handle(), tokens("ab")).unwrap().unwrap();
    HostPendingCommit::drop(&mut state, pending).await.unwrap();
    assert_eq!(events.text(), "abc");
    assert_eq!(state.verify(handle(), Vec::new()).await.unwrap().unwrap().tokens, tokens("d"));
}

#[tokio::test]
async fn state_over_the_limit_is_not_saved() {
    let (mut state, _events) = state(Limits::default());
    state.save_state(handle(), b"short".to_vec()).unwrap();
    state.save_state(handle(), vec![0; MAX_STATE_BYTES + 1]).unwrap();
    assert_eq!(state.load_state(handle()).unwrap(), b"short");
}

#[tokio::test]
async fn guest_is_stopped_after_too_many_calls() {
    let (mut state, _events) = state(Limits { calls: 2, ..Limits::default() });
    state.remaining(handle()).unwrap();
    state.remaining(handle()).unwrap();
    let error = state.remaining(handle()).unwrap_err();
    assert_eq!(error.to_string(), "out of host calls");
}

#[tokio::test]
async fn ruling_over_too_many_ballots_ends_the_instance() {
    use crate::bindings::tightwad::plugin::active_policy::Host as HostPolicy;
    use crate::bindings::tightwad::plugin::ballots::Ballot;
    let (mut state, _events) = state(Limits::default());
    let ballot = |proposals: usize| Ballot {
        drafter: 0,
        weight: 1.0,
        proposals: vec![Proposal { token: 1, probability: 0.5 }; proposals],
    };
    assert!(state.rule(vec![ballot(256); 256], 1).await.unwrap().is_none());
    for ballots in [vec![ballot(1); 257], vec![ballot(257)]] {
        let error = state.rule(ballots, 1).await.unwrap_err();
        assert_eq!(error.to_string(), "a ruling has at most 256 ballots of 256 proposals");
    }
}
