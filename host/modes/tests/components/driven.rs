//! Requests that a component drives: whatever it does, the answer is the target's own.

use std::sync::Arc;

use tightwad_core::testing::{Events, FakeModel};
use tightwad_core::{Backend, BackendError, OnReviewerLost, Outcome, Request, SharedBackend, Ways};
use tightwad_modes::{Gate, GateParts, GatePlugin, KINDS, Plugin, Speculation};
use tightwad_sandbox::{Library, Limits, PluginEngine};

const ANSWER: &str = "one two three, one two three, one two three";

fn library() -> Library {
    let engine = PluginEngine::new(None, Limits::default()).unwrap();
    Library::new(Arc::new(engine), KINDS, Vec::new())
}

fn fixture(name: &str) -> String {
    format!("{}/../../plugins/fixtures/dist/{name}.wasm", env!("CARGO_MANIFEST_DIR"))
}

fn shared(model: FakeModel) -> SharedBackend {
    Arc::new(model)
}

/// The answer of `backend`: what the client got, and how it ended.
async fn answer(backend: &dyn Backend) -> (String, Result<Outcome, BackendError>) {
    let (sink, mut events) = Events::new();
    let request = Request { max_tokens: Some(200), ..Request::default() };
    let done = backend.generator().unwrap().generate(request, sink).await;
    (events.text(), done)
}

/// Speculation by `plugin` on `target`, drafted for by `drafter`.
async fn speculation(plugin: &str, target: FakeModel, drafter: FakeModel) -> Speculation {
    let slot = library().load::<Plugin>(plugin, None).await.unwrap();
    Speculation::new(shared(target), vec![shared(drafter)], slot, "{}".to_owned()).unwrap()
}

#[tokio::test]
async fn speculation_gives_the_target_s_own_output_whatever_is_drafted() {
    for drafted in [ANSWER, "something else entirely", ""] {
        let target = FakeModel::new("target", ANSWER);
        let speculation = speculation("speculation", target, FakeModel::new("drafter", drafted)).await;
        let (text, done) = answer(&speculation).await;
        let report = done.unwrap().report;
        assert_eq!((text.as_str(), report.exact, report.fallback), (ANSWER, true, None), "{drafted}");
        assert_eq!(report.plugins[0].0, "speculation@0.1.0");
    }
}

#[tokio::test]
async fn a_plugin_that_fails_is_followed_by_plain_decoding() {
    for (name, why) in [
        ("panic", "trapped"),
        ("loop-forever", "ran longer than"),
        ("allocate", "out of memory"),
        ("early-return", "returned before the target was finished"),
    ] {
        let target = FakeModel::new("target", ANSWER);
        let speculation = speculation(&fixture(name), target, FakeModel::new("drafter", ANSWER)).await;
        let (text, done) = answer(&speculation).await;
        let report = done.unwrap().report;
        assert_eq!((text.as_str(), report.exact), (ANSWER, true), "{name}");
        let fallback = report.fallback.unwrap();
        assert!(fallback.contains(why), "{name}: {fallback}");
    }
}

#[tokio::test]
async fn a_drafter_that_is_lost_costs_nothing_but_its_drafts() {
    let drafter = FakeModel::new("drafter", ANSWER).failing_after(4);
    let speculation = speculation("speculation", FakeModel::new("target", ANSWER), drafter).await;
    let (text, done) = answer(&speculation).await;
    assert_eq!((text.as_str(), done.unwrap().report.fallback), (ANSWER, None));
}

#[tokio::test]
async fn a_target_that_is_lost_ends_the_request_and_what_was_sent_stays() {
    let target = FakeModel::new("target", ANSWER).failing_after(8);
    let speculation = speculation("speculation", target, FakeModel::new("drafter", "x")).await;
    let (text, done) = answer(&speculation).await;
    assert!(ANSWER.starts_with(&text) && text.len() >= 7, "{text}");
    assert_eq!(done.unwrap_err().to_string(), "target failed: it is lost");
}

#[tokio::test]
async fn a_plugin_that_fails_again_and_again_is_not_asked_for_a_while() {
    let target = FakeModel::new("target", ANSWER);
    let speculation = speculation(&fixture("panic"), target, FakeModel::new("drafter", ANSWER)).await;
    for _ in 0..5 {
        answer(&speculation).await.1.unwrap();
    }
    let (text, done) = answer(&speculation).await;
    assert_eq!(text, ANSWER);
    let fallback = done.unwrap().report.fallback.unwrap();
    assert!(fallback.contains("left alone for a while"), "{fallback}");
}

/// A gate by `plugin`: a member that answers `written`, before a reviewer that answers [`ANSWER`].
async fn gate(plugin: &str, written: &str) -> Gate {
    Gate::new(GateParts {
        fleet: vec![shared(FakeModel::new("small", written))],
        reviewer: shared(FakeModel::new("big", ANSWER)),
        ways: Ways { score: true, judge: false },
        prompt: String::new(),
        settings: "{}".to_owned(),
        plugin: library().load::<GatePlugin>(plugin, None).await.unwrap(),
        policy: None,
        on_lost: OnReviewerLost::Error,
        cache: None,
    })
}

#[tokio::test]
async fn the_built_in_gate_approves_what_the_reviewer_would_have_written() {
    let (text, done) = answer(&gate("gate", ANSWER).await).await;
    let report = done.unwrap().report.gate.unwrap();
    assert_eq!((text.as_str(), report.verdict.as_str()), (ANSWER, "approved"));
}

#[tokio::test]
async fn the_built_in_gate_lets_the_reviewer_mend_what_it_would_not_have_written() {
    let (text, done) = answer(&gate("gate", "one two four").await).await;
    let report = done.unwrap().report.gate.unwrap();
    assert_eq!(text, ANSWER);
    assert!(["corrected", "rejected"].contains(&report.verdict.as_str()), "{}", report.verdict);
}
