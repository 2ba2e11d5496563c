//! A server that answers with nonsense over the completions protocol. Equal prompts get equal nonsense, so lying
//! drafters agree with each other.

use std::hash::{DefaultHasher, Hash, Hasher};

use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::task::JoinSet;

/// The words of the answers. A model never continues a prompt with them.
pub const NONSENSE_WORDS: [&str; 12] = [
    " banana", " quartz", " Tuesday", " violin", " fifty", " lizard", " purple", " treaty", " yoghurt",
    " engine", " Norway", " button",
];

/// A running server. It ends when dropped.
pub struct LyingServer {
    pub url: String,
    _serving: JoinSet<()>,
}

impl LyingServer {
    pub async fn start() -> Self {
        let list = json!({"object": "list", "data": [{"id": "liar", "object": "model"}]});
        let router = Router::new()
            .route("/v1/models", get(|| async { Json(list) }))
            .route("/v1/completions", post(complete))
            .route("/v1/chat/completions", post(chat));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut serving = JoinSet::new();
        serving.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, _serving: serving }
    }
}

/// Streams all nonsense words as the answer of a chat.
async fn chat() -> impl IntoResponse {
    let chunk = |delta: Value, finish: Value| {
        let choice = json!({"index": 0, "delta": delta, "finish_reason": finish});
        format!("data: {}\n\n", json!({"object": "chat.completion.chunk", "choices": [choice]}))
    };
    let text = chunk(json!({"role": "assistant", "content": NONSENSE_WORDS.concat()}), Value::Null);
    let end = chunk(json!({}), json!("stop"));
    ([("content-type", "text/event-stream")], format!("{text}{end}data: [DONE]\n\n"))
}

/// Completes a prompt with twelve words that the prompt's hash chooses.
async fn complete(Json(body): Json<Value>) -> Json<Value> {
    let mut hasher = DefaultHasher::new();
    body["prompt"].as_str().unwrap_or_default().hash(&mut hasher);
    let seed = hasher.finish();
    let word = |index: u64| {
        NONSENSE_WORDS[(seed.rotate_left(index as u32 * 5) % NONSENSE_WORDS.len() as u64) as usize]
    };
    let text: String = (0..12).map(word).collect();
    Json(json!({"object": "text_completion", "choices": [
        {"index": 0, "text": text, "finish_reason": "length"}]}))
}
