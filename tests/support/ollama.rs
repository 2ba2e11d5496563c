//! A server that speaks Ollama's API as its documentation (docs/api.md) defines it. It forwards each request to a
//! running tightwad with a real model and converts the answer.

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

/// A running server. It ends when dropped.
pub struct Ollama {
    pub url: String,
    /// The path and the body of each received request.
    pub requests: Arc<Mutex<Vec<(String, Value)>>>,
    _serving: JoinSet<()>,
}

#[derive(Clone)]
struct Model {
    /// The URL of the tightwad behind this server.
    upstream: String,
    model: String,
    client: reqwest::Client,
    requests: Arc<Mutex<Vec<(String, Value)>>>,
}

impl Ollama {
    /// Serves `model` of the tightwad at `upstream` as `smollm2:latest`.
    pub async fn start(upstream: &str, model: &str) -> Self {
        let requests: Arc<Mutex<Vec<(String, Value)>>> = Arc::default();
        let client = tightwad_net::machine_client().build().unwrap();
        let state = Model {
            upstream: upstream.to_owned(),
            model: model.to_owned(),
            client,
            requests: requests.clone(),
        };
        let router = Router::new()
            .route("/api/tags", get(tags))
            .route("/api/chat", post(chat))
            .route("/api/generate", post(generate))
            .with_state(state);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut serving = JoinSet::new();
        serving.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, requests, _serving: serving }
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

/// Answers a request. Like Ollama, it streams unless `stream` is false.
async fn answer(model: Model, body: Value, path: &'static str) -> Response {
    model.requests.lock().unwrap().push((path.to_owned(), body.clone()));
    if !["smollm2", "smollm2:latest"].contains(&body["model"].as_str().unwrap_or_default()) {
        let error = json!({"error": format!("model {} not found", body["model"])});
        return (StatusCode::NOT_FOUND, Json(error)).into_response();
    }
    let options = &body["options"];
    let mut request = json!({"model": model.model, "stream": true, "stream_options": {"include_usage": true},
        "temperature": options["temperature"].as_f64().unwrap_or(0.8), "top_p": options["top_p"].as_f64().unwrap_or(0.9),
        "seed": options["seed"].as_u64().unwrap_or(0)});
    if let Some(max_tokens) = options["num_predict"].as_u64() {
        request["max_tokens"] = json!(max_tokens);
    }
    let chat = path == "/api/chat";
    let upstream_path = if chat {
        request["messages"] = body["messages"].clone();
        "/v1/chat/completions"
    } else {
        assert_eq!(body["raw"], true, "a prompt with its template written out");
        request["prompt"] = body["prompt"].clone();
        "/v1/completions"
    };
    let response =
        model.client.post(format!("{}{upstream_path}", model.upstream)).json(&request).send().await.unwrap();
    assert!(response.status().is_success());
    let stream = body["stream"] != false;
    let lines = events(response).map(move |event| ollama_line(&event, chat));
    if stream {
        let lines = lines.filter_map(|line| async move { Some(Ok::<_, Infallible>(format!("{}\n", line?))) });
        return ([("content-type", "application/x-ndjson")], Body::from_stream(lines)).into_response();
    }
    let lines: Vec<Value> = lines.filter_map(|line| async move { line }).collect().await;
    let text_of = |line: &Value| {
        line["response"].as_str().or(line["message"]["content"].as_str()).unwrap_or("").to_owned()
    };
    let text: String = lines.iter().map(text_of).collect();
    let mut last = lines.last().unwrap().clone();
    if chat {
        last["message"]["content"] = json!(text);
    } else {
        last["response"] = json!(text);
    }
    Json(last).into_response()
}

/// The events of a stream in OpenAI's format.
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

/// Converts an event to a line of Ollama's stream. Events that Ollama does not have become `None`.
fn ollama_line(event: &Value, chat: bool) -> Option<Value> {
    let mut line = json!({"model": "smollm2:latest", "created_at": "2026-01-01T00:00:00Z", "done": false});
    let choice = &event["choices"][0];
    let text = choice["delta"]["content"].as_str().or(choice["text"].as_str()).unwrap_or_default();
    if event["usage"].is_object() {
        line["done"] = json!(true);
        line["done_reason"] = json!("stop");
        line["prompt_eval_count"] = event["usage"]["prompt_tokens"].clone();
        line["eval_count"] = event["usage"]["completion_tokens"].clone();
    } else if text.is_empty() {
        return None;
    }
    if chat {
        line["message"] = json!({"role": "assistant", "content": text});
    } else {
        line["response"] = json!(text);
    }
    Some(line)
}
