//! A server that speaks the completions protocol and talks nonsense, the same nonsense to whoever asks the
//! same: drafters that lie, and agree.

use std::hash::{DefaultHasher, Hash, Hasher};

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
            .route("/v1/completions", post(lie));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut serving = JoinSet::new();
        serving.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, _serving: serving }
    }
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
