//! A server that answers `/v1/completions` as vLLM's documentation defines it, with `prompt_logprobs` and
//! `return_tokens_as_token_ids`. An engine in the process of the test runs a real model.

use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use tightwad_core::{FinishReason, Sampling, SamplingSpec, TokenId};
use tightwad_engine::{Engine, EngineConfig, SessionParams};
use tokio::task::JoinSet;

use super::small_model;

/// A running server. It ends when dropped.
pub struct Vllm {
    pub url: String,
    /// The bodies of the received requests.
    pub requests: Arc<Mutex<Vec<Value>>>,
    _serving: JoinSet<()>,
}

#[derive(Clone)]
struct Model {
    engine: Engine,
    requests: Arc<Mutex<Vec<Value>>>,
}

impl Vllm {
    /// Serves the small model.
    pub async fn start() -> Self {
        tightwad_engine::select_row_invariant_kernels();
        let config = EngineConfig { context: 1024, slots: 2, threads: 1, ..EngineConfig::default() };
        let engine =
            tokio::task::spawn_blocking(move || Engine::load(&small_model(), config)).await.unwrap().unwrap();
        let requests: Arc<Mutex<Vec<Value>>> = Arc::default();
        let list = json!({"object": "list", "data": [{"id": "smollm2", "object": "model"}]});
        let router = Router::new()
            .route("/v1/models", get(|| async { Json(list) }))
            .route("/v1/completions", post(complete))
            .with_state(Model { engine, requests: requests.clone() });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut serving = JoinSet::new();
        serving.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, requests, _serving: serving }
    }
}

async fn complete(State(model): State<Model>, Json(body): Json<Value>) -> Json<Value> {
    model.requests.lock().unwrap().push(body.clone());
    let prompt: Vec<TokenId> = serde_json::from_value(body["prompt"].clone()).unwrap();
    assert_eq!((&body["temperature"], &body["return_tokens_as_token_ids"]), (&json!(0), &json!(true)));
    let spec = SamplingSpec { temperature: 0.0, ..SamplingSpec::default() };
    let max_tokens = body["max_tokens"].as_u64().unwrap() as u32;
    let params = |prompt: Vec<TokenId>, max_tokens| SessionParams {
        prompt,
        output: Vec::new(),
        sampling: Sampling::new(spec.clone()).unwrap(),
        constraint: None,
        max_tokens,
        prefill: true,
    };
    let mut prompt_logprobs = Value::Null;
    if body["prompt_logprobs"] == 1 {
        // The first token has no probability, because no token precedes it.
        let mut session = model.engine.open(params(prompt[..1].to_vec(), 0)).await.unwrap();
        let scores = session.score(prompt[1..].to_vec()).await.unwrap();
        let entry = |score: tightwad_core::TokenScore| {
            let mut entry =
                json!({score.token.to_string(): {"logprob": score.logprob, "rank": score.rank + 1}});
            entry[score.best.to_string()] = json!({"logprob": score.best_logprob, "rank": 1});
            entry
        };
        prompt_logprobs = std::iter::once(Value::Null).chain(scores.into_iter().map(entry)).collect();
    }
    let mut session = model.engine.open(params(prompt, max_tokens)).await.unwrap();
    let mut steps = session.decode(max_tokens).unwrap();
    let (mut tokens, mut finish_reason) = (Vec::new(), "length");
    while let Some(step) = steps.recv().await {
        let step = step.unwrap();
        tokens.extend(step.committed.iter().map(|token| format!("token_id:{}", token.token)));
        if step.finish_reason == Some(FinishReason::Stop) {
            finish_reason = "stop";
        }
    }
    Json(
        json!({"object": "text_completion", "choices": [{"index": 0, "text": "", "finish_reason": finish_reason,
        "logprobs": {"tokens": tokens}, "prompt_logprobs": prompt_logprobs}]}),
    )
}
