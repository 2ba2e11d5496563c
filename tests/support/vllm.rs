//! A server that answers `/v1/completions` as vLLM's documentation defines it, `prompt_logprobs` and
//! `return_tokens_as_token_ids` included, over a real model: an engine in the test's own process.

use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use tightwad_core::{Finish, Sampling, SamplingSpec, TokenId};
use tightwad_engine::{Engine, EngineConfig, OpenSession};
use tokio::task::JoinSet;

use super::small;

/// Ends when dropped.
pub struct Vllm {
    pub url: String,
    /// The bodies that came.
    pub asked: Arc<Mutex<Vec<Value>>>,
    _serving: JoinSet<()>,
}

#[derive(Clone)]
struct Model {
    engine: Engine,
    asked: Arc<Mutex<Vec<Value>>>,
}

impl Vllm {
    /// Serves the small model.
    pub async fn start() -> Self {
        tightwad_engine::prepare();
        let config = EngineConfig { context: 1024, slots: 2, threads: 1, ..EngineConfig::default() };
        let engine =
            tokio::task::spawn_blocking(move || Engine::load(&small(), config)).await.unwrap().unwrap();
        let asked: Arc<Mutex<Vec<Value>>> = Arc::default();
        let list = json!({"object": "list", "data": [{"id": "smollm2", "object": "model"}]});
        let router = Router::new()
            .route("/v1/models", get(|| async { Json(list) }))
            .route("/v1/completions", post(complete))
            .with_state(Model { engine, asked: asked.clone() });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut serving = JoinSet::new();
        serving.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, asked, _serving: serving }
    }
}

async fn complete(State(model): State<Model>, Json(body): Json<Value>) -> Json<Value> {
    model.asked.lock().unwrap().push(body.clone());
    let prompt: Vec<TokenId> = serde_json::from_value(body["prompt"].clone()).unwrap();
    assert_eq!((&body["temperature"], &body["return_tokens_as_token_ids"]), (&json!(0), &json!(true)));
    let spec = SamplingSpec { temperature: 0.0, ..SamplingSpec::default() };
    let most = body["max_tokens"].as_u64().unwrap() as u32;
    let open = |prompt: Vec<TokenId>, max_tokens| OpenSession {
        prompt,
        output: Vec::new(),
        sampling: Sampling::new(spec.clone()).unwrap(),
        constraint: None,
        max_tokens,
        prefill: true,
    };
    let mut prompt_logprobs = Value::Null;
    if body["prompt_logprobs"] == 1 {
        // The first token has no probability: nothing stands before it.
        let mut session = model.engine.open(open(prompt[..1].to_vec(), 0)).await.unwrap();
        let scored = session.score(prompt[1..].to_vec()).await.unwrap();
        let entry = |one: tightwad_core::Scored| {
            let mut entry = json!({one.token.to_string(): {"logprob": one.logprob, "rank": one.rank + 1}});
            entry[one.best.to_string()] = json!({"logprob": one.best_logprob, "rank": 1});
            entry
        };
        prompt_logprobs = std::iter::once(Value::Null).chain(scored.into_iter().map(entry)).collect();
    }
    let mut session = model.engine.open(open(prompt, most)).await.unwrap();
    let mut steps = session.decode(most).unwrap();
    let (mut tokens, mut reason) = (Vec::new(), "length");
    while let Some(step) = steps.recv().await {
        let step = step.unwrap();
        tokens.extend(step.committed.iter().map(|one| format!("token_id:{}", one.token)));
        if step.finish == Some(Finish::Stop) {
            reason = "stop";
        }
    }
    Json(json!({"object": "text_completion", "choices": [{"index": 0, "text": "", "finish_reason": reason,
        "logprobs": {"tokens": tokens}, "prompt_logprobs": prompt_logprobs}]}))
}
