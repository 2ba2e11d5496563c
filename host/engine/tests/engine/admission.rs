//! Requests that the engine refuses.
use std::sync::Arc;

use tightwad_core::{
    Backend, BackendError, Format, Prompt, Request, Sampling, SamplingSpec, TargetSource,
    generate_by_decoding,
};
use tightwad_engine::{EngineConfig, Llama};
use tokio::sync::mpsc;

use crate::support::{load, load_vocabulary, params, smollm2};

fn llama(config: EngineConfig) -> Llama {
    Llama::new("m", load(EngineConfig { context: 512, ..config }), None)
}

/// A request with `biases` for three tokens of text.
fn request(text: &str, biases: &[(u32, f32)]) -> Request {
    let spec = SamplingSpec { logit_bias: biases.to_vec(), ..SamplingSpec::default() };
    let sampling = Sampling::new(spec).unwrap();
    Request { prompt: Prompt::Text(text.into()), sampling, max_tokens: Some(3), ..Request::default() }
}

/// The message and the parameter of a refusal.
async fn refusal(model: &Llama, request: Request) -> (String, Option<&'static str>) {
    let (sink, _events) = mpsc::channel(8);
    match generate_by_decoding(model, request, sink).await {
        Err(BackendError::Invalid { message, parameter, .. }) => (message, parameter),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bias_outside_the_vocabulary_is_refused() {
    let model = llama(EngineConfig { slots: 1, ..EngineConfig::default() });
    let size = load_vocabulary(&smollm2()).vocabulary_size();
    let (message, parameter) = refusal(&model, request("Hi", &[(5, 1.0), (size, 1.0)])).await;
    assert_eq!(parameter, Some("logit_bias"));
    assert!(message.contains(&format!("token {size},")), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn biases_that_forbid_every_token_are_named() {
    let model = llama(EngineConfig { slots: 1, ..EngineConfig::default() });
    let allowed = model.tokenizer().unwrap().tokenize("7").await.unwrap();
    let biases: Vec<_> = allowed.iter().map(|token| (*token, -100.0)).collect();
    let constrained = Request { format: Format::Grammar("start: \"7\"".into()), ..request("Hi", &biases) };
    let (message, parameter) = refusal(&model, constrained).await;
    assert_eq!(parameter, Some("logit_bias"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn full_queue_refuses_requests_before_their_prompts_are_tokenized() {
    let model = llama(EngineConfig { slots: 1, max_queue: 0, ..EngineConfig::default() });
    let engine = model.engine().clone();
    let first = engine.open(params(&engine, "Hi", 0.0, 3).await).await.unwrap();
    let waiting = params(&engine, "Hi", 0.0, 3).await;
    let waiting = tokio::spawn({
        let engine = engine.clone();
        async move { engine.open(waiting).await.map(drop) }
    });
    while model.load().waiting == 0 {
        tokio::task::yield_now().await;
    }
    // The tokenizer would call this prompt too long.
    let long = Arc::new(request(&"one two ".repeat(100_000), &[]));
    let refused = model.open_target(&long, None).await.err();
    assert!(matches!(refused, Some(BackendError::Overloaded { .. })), "{refused:?}");
    drop(first);
    assert!(waiting.await.unwrap().is_ok());
    let refused = model.open_target(&long, None).await.err();
    assert!(matches!(refused, Some(BackendError::Invalid { .. })), "{refused:?}");
}
