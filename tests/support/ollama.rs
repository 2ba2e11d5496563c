//! A server that speaks Ollama's API as its documentation (docs/api.md) defines it, over a real model:
//! it asks a running tightwad, and puts the answers into Ollama's shapes.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::task::JoinSet;

/// Ends when dropped.
pub struct Ollama {
    pub url: String,
    /// The bodies that came, by path.
    pub asked: Arc<Mutex<Vec<(String, Value)>>>,
    _serving: JoinSet<()>,
}

#[derive(Clone)]
struct Model {
    /// The tightwad behind it, and its model.
    behind: String,
    model: String,
    client: reqwest::Client,
    asked: Arc<Mutex<Vec<(String, Value)>>>,
}

impl Ollama {
    /// Serves `model` of the tightwad at `behind` as `smollm2:latest`.
    pub async fn start(behind: &str, model: &str) -> Self {
        let asked: Arc<Mutex<Vec<(String, Value)>>> = Arc::default();
        let client = tightwad_net::machine_client().build().unwrap();
        let state =
            Model { behind: behind.to_owned(), model: model.to_owned(), client, asked: asked.clone() };
        let router = Router::new()
            .route("/api/tags", get(tags))
            .route("/api/chat", post(chat))
            .route("/api/generate", post(generate))
            .with_state(state);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut serving = JoinSet::new();
        serving.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, asked, _serving: serving }
    }
}

async fn tags() -> Json<Value> {
    let details = json!({"format": "gguf", "family": "llama", "parameter_size": "135M"});
    Json(json!({"models": [{"name": "smollm2:latest", "model": "smollm2:latest", "details": details}]}))
}

async fn chat(State(model): State<Model>, Json(body): Json<Value>) -> Response {
    answer(model, body, "/api/chat").await
}

async fn generate(State(model): State<Model>, Json(body): Json<Value>) -> Response {
    answer(model, body, "/api/generate").await
}

/// Ollama streams unless told not to.
async fn answer(model: Model, body: Value, path: &'static str) -> Response {
    model.asked.lock().unwrap().push((path.to_owned(), body.clone()));
    if !["smollm2", "smollm2:latest"].contains(&body["model"].as_str().unwrap_or_default()) {
        let error = json!({"error": format!("model {} not found", body["model"])});
        return (StatusCode::NOT_FOUND, Json(error)).into_response();
    }
    let options = &body["options"];
    let mut asked = json!({"model": model.model, "stream": true, "stream_options": {"include_usage": true},
        "temperature": options["temperature"].as_f64().unwrap_or(0.8), "top_p": options["top_p"].as_f64().unwrap_or(0.9),
        "seed": options["seed"].as_u64().unwrap_or(0)});
    if let Some(most) = options["num_predict"].as_u64() {
        asked["max_tokens"] = json!(most);
    }
    let chat = path == "/api/chat";
    let to = if chat {
        asked["messages"] = body["messages"].clone();
        "/v1/chat/completions"
    } else {
        assert_eq!(body["raw"], true, "a prompt with its template written out");
        asked["prompt"] = body["prompt"].clone();
        "/v1/completions"
    };
    let response = model.client.post(format!("{}{to}", model.behind)).json(&asked).send().await.unwrap();
    assert!(response.status().is_success());
    let streamed = body["stream"] != false;
    let pieces = events(response).map(move |event| piece(&event, chat));
    if streamed {
        let lines =
            pieces.filter_map(|piece| async move { Some(Ok::<_, Infallible>(format!("{}\n", piece?))) });
        return ([("content-type", "application/x-ndjson")], Body::from_stream(lines)).into_response();
    }
    let all: Vec<Value> = pieces.filter_map(|piece| async move { piece }).collect().await;
    let text = |piece: &Value| {
        piece["response"].as_str().or(piece["message"]["content"].as_str()).unwrap_or("").to_owned()
    };
    let whole: String = all.iter().map(text).collect();
    let mut last = all.last().unwrap().clone();
    if chat {
        last["message"]["content"] = json!(whole);
    } else {
        last["response"] = json!(whole);
    }
    Json(last).into_response()
}

/// The events of OpenAI's stream.
fn events(response: reqwest::Response) -> impl futures_util::Stream<Item = Value> + Send {
    let state = (response, Vec::new());
    futures_util::stream::unfold(state, |(mut response, mut read)| async move {
        loop {
            if let Some(end) = read.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = read.drain(..=end).collect();
                match line.strip_prefix(b"data: ").map(serde_json::from_slice::<Value>) {
                    Some(Ok(event)) => return Some((event, (response, read))),
                    _ => continue,
                }
            }
            read.extend_from_slice(&response.chunk().await.unwrap()?);
        }
    })
}

/// One of them as a line of Ollama's; `None` for those that say nothing there.
fn piece(event: &Value, chat: bool) -> Option<Value> {
    let mut piece = json!({"model": "smollm2:latest", "created_at": "2026-01-01T00:00:00Z", "done": false});
    let choice = &event["choices"][0];
    let text = choice["delta"]["content"].as_str().or(choice["text"].as_str()).unwrap_or_default();
    if event["usage"].is_object() {
        piece["done"] = json!(true);
        piece["done_reason"] = json!("stop");
        piece["prompt_eval_count"] = event["usage"]["prompt_tokens"].clone();
        piece["eval_count"] = event["usage"]["completion_tokens"].clone();
    } else if text.is_empty() {
        return None;
    }
    if chat {
        piece["message"] = json!({"role": "assistant", "content": text});
    } else {
        piece["response"] = json!(text);
    }
    Some(piece)
}
