//! Requests that a component drives. The answer is the target's own for every component.

use std::sync::Arc;

use tightwad_core::testing::{Events, FakeModel};
use tightwad_core::{Backend, BackendError, OnReviewerLost, Outcome, Request, ReviewMethods, SharedBackend};
use tightwad_modes::{Gate, GateDriver, GateParts, KINDS, ModeDriver, Settings, Speculation};
use tightwad_sandbox::{Library, Limits, PluginEngine};

const ANSWER: &str = "one two three, one two three, one two three";

fn library() -> Library {
    library_with(Limits::default())
}

fn library_with(limits: Limits) -> Library {
    let engine = PluginEngine::new(None, limits).unwrap();
    Library::new(Arc::new(engine), KINDS, Vec::new())
}

fn fixture(name: &str) -> String {
    format!("{}/../../plugins/fixtures/dist/{name}.wasm", env!("CARGO_MANIFEST_DIR"))
}

fn shared_backend(model: FakeModel) -> SharedBackend {
    Arc::new(model)
}

/// Lets `backend` answer. Returns the text that the client received, and the result.
async fn answer(backend: &dyn Backend) -> (String, Result<Outcome, BackendError>) {
    let (sink, mut events) = Events::new();
    let request = Request { max_tokens: Some(200), ..Request::default() };
    let result = backend.generator().unwrap().generate(request, sink).await;
    (events.text(), result)
}

/// A speculation of `target` and `drafter`, driven by `driver`.
async fn speculation(driver: &str, target: FakeModel, drafter: FakeModel) -> Speculation {
    let driver = library().load::<ModeDriver>(driver, None).await.unwrap();
    Speculation::new(shared_backend(target), vec![shared_backend(drafter)], driver, Settings::default())
        .unwrap()
}

#[tokio::test]
async fn speculation_returns_the_targets_output_for_any_draft() {
    for drafted in [ANSWER, "something else entirely", ""] {
        let target = FakeModel::new("target", ANSWER);
        let speculation = speculation("speculation", target, FakeModel::new("drafter", drafted)).await;
        let (text, result) = answer(&speculation).await;
        let report = result.unwrap().report;
        assert_eq!((text.as_str(), report.exact, report.fallback), (ANSWER, true, None), "{drafted}");
        assert_eq!(report.plugins[0].0, "speculation@0.1.0");
    }
}

#[tokio::test]
async fn failed_driver_is_followed_by_plain_decoding() {
    for (name, reason) in [
        ("panic", "trapped"),
        ("loop-forever", "ran longer than"),
        ("allocate", "out of memory"),
        ("early-return", "returned before the target was finished"),
    ] {
        let target = FakeModel::new("target", ANSWER);
        let speculation = speculation(&fixture(name), target, FakeModel::new("drafter", ANSWER)).await;
        let (text, result) = answer(&speculation).await;
        let report = result.unwrap().report;
        assert_eq!((text.as_str(), report.exact), (ANSWER, true), "{name}");
        let fallback = report.fallback.unwrap();
        assert!(fallback.contains(reason), "{name}: {fallback}");
    }
}

#[tokio::test]
async fn lost_drafter_does_not_change_the_answer() {
    let drafter = FakeModel::new("drafter", ANSWER).failing_after(4);
    let speculation = speculation("speculation", FakeModel::new("target", ANSWER), drafter).await;
    let (text, result) = answer(&speculation).await;
    assert_eq!((text.as_str(), result.unwrap().report.fallback), (ANSWER, None));
}

#[tokio::test]
async fn lost_target_ends_the_request_with_a_partial_answer() {
    let target = FakeModel::new("target", ANSWER).failing_after(8);
    let speculation = speculation("speculation", target, FakeModel::new("drafter", "x")).await;
    let (text, result) = answer(&speculation).await;
    assert!(ANSWER.starts_with(&text) && text.len() >= 7, "{text}");
    assert_eq!(result.unwrap_err().to_string(), "target failed: it is lost");
}

#[tokio::test]
async fn driver_is_not_called_after_repeated_failures() {
    let target = FakeModel::new("target", ANSWER);
    let speculation = speculation(&fixture("panic"), target, FakeModel::new("drafter", ANSWER)).await;
    for _ in 0..5 {
        answer(&speculation).await.1.unwrap();
    }
    let (text, result) = answer(&speculation).await;
    assert_eq!(text, ANSWER);
    let fallback = result.unwrap().report.fallback.unwrap();
    assert!(fallback.contains("during a cooldown"), "{fallback}");
}

#[tokio::test]
async fn request_without_a_free_instance_is_decoded_plainly() {
    let library = library_with(Limits { instances: 4, ..Limits::default() });
    let driver = library.load::<ModeDriver>("speculation", None).await.unwrap();
    let (target, drafter) = (FakeModel::new("target", ANSWER), FakeModel::new("drafter", ANSWER));
    let drafters = vec![shared_backend(drafter)];
    let speculation =
        Speculation::new(shared_backend(target), drafters, driver, Settings::default()).unwrap();
    let answers = futures_util::future::join_all((0..16).map(|_| answer(&speculation))).await;
    let mut fallbacks = Vec::new();
    for (text, result) in answers {
        assert_eq!(text, ANSWER);
        fallbacks.extend(result.unwrap().report.fallback);
    }
    // More than the failures that open the circuit breaker.
    assert!(fallbacks.len() > 5, "{fallbacks:?}");
    let expected = "has no free instance for mode.run: the host runs at most 4 at the same time";
    assert!(fallbacks.iter().all(|reason| reason.contains(expected)), "{fallbacks:?}");
    assert_eq!(answer(&speculation).await.1.unwrap().report.fallback, None);
}

/// A gate with the built-in driver, a member that answers `candidate`, and a reviewer that answers [`ANSWER`].
async fn gate(candidate: &str) -> Gate {
    Gate::new(GateParts {
        fleet: vec![shared_backend(FakeModel::new("small", candidate))],
        reviewer: shared_backend(FakeModel::new("big", ANSWER)),
        review_methods: ReviewMethods { score: true, judge: false },
        judge_prompt: String::new(),
        settings: Settings::default(),
        driver: library().load::<GateDriver>("gate", None).await.unwrap(),
        policy: None,
        on_reviewer_lost: OnReviewerLost::Error,
        cache: None,
    })
}

#[tokio::test]
async fn built_in_gate_approves_the_reviewers_own_answer() {
    let (text, result) = answer(&gate(ANSWER).await).await;
    let report = result.unwrap().report.gate.unwrap();
    assert_eq!((text.as_str(), report.verdict.as_str()), (ANSWER, "approved"));
}

#[tokio::test]
async fn built_in_gate_lets_the_reviewer_fix_another_answer() {
    let (text, result) = answer(&gate("one two four").await).await;
    let report = result.unwrap().report.gate.unwrap();
    assert_eq!(text, ANSWER);
    assert!(["corrected", "rejected"].contains(&report.verdict.as_str()), "{}", report.verdict);
}
