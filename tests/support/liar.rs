//! A server that speaks the completions protocol and talks nonsense, the same nonsense to whoever asks the
//! same: drafters that lie, and agree.

use std::hash::{DefaultHasher, Hash, Hasher};

use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::task::JoinSet;

/// What it says. Nothing a model would go on with.
pub const WORDS: [&str; 12] = [
    " banana", " quartz", " Tuesday", " violin", " fifty", " lizard", " purple", " treaty", " yoghurt",
    " engine", " Norway", " button",
];

/// Ends when dropped.
pub struct Liar {
    pub url: String,
    _serving: JoinSet<()>,
}

impl Liar {
    pub async fn start() -> Self {
        let list = json!({"object": "list", "data": [{"id": "liar", "object": "model"}]});
        let router = Router::new()
            .route("/v1/models", get(|| async { Json(list) }))
            .route("/v1/completions", post(lie))
            .route("/v1/chat/completions", post(lie_in_chat));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut serving = JoinSet::new();
        serving.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, _serving: serving }
    }
}

/// The same as a whole answer, streamed as a chat is.
async fn lie_in_chat() -> impl IntoResponse {
    let chunk = |delta: Value, finish: Value| {
        let choice = json!({"index": 0, "delta": delta, "finish_reason": finish});
        format!("data: {}\n\n", json!({"object": "chat.completion.chunk", "choices": [choice]}))
    };
    let text = chunk(json!({"role": "assistant", "content": WORDS.concat()}), Value::Null);
    let end = chunk(json!({}), json!("stop"));
    ([("content-type", "text/event-stream")], format!("{text}{end}data: [DONE]\n\n"))
}

async fn lie(Json(body): Json<Value>) -> Json<Value> {
    let mut hasher = DefaultHasher::new();
    body["prompt"].as_str().unwrap_or_default().hash(&mut hasher);
    let seed = hasher.finish();
    let word = |at: u64| WORDS[(seed.rotate_left(at as u32 * 5) % WORDS.len() as u64) as usize];
    let text: String = (0..12).map(word).collect();
    Json(json!({"object": "text_completion", "choices": [
        {"index": 0, "text": text, "finish_reason": "length"}]}))
}
