//! A server that speaks the completions protocol and always says the same: a drafter that lies.

use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::json;
use tokio::task::JoinSet;

/// Ends when dropped.
pub struct Liar {
    pub url: String,
    _serving: JoinSet<()>,
}

impl Liar {
    pub async fn start(word: &'static str) -> Self {
        let said = move || async move {
            Json(json!({"object": "text_completion", "choices": [
                {"index": 0, "text": word.repeat(40), "finish_reason": "length"}]}))
        };
        let list = json!({"object": "list", "data": [{"id": "liar", "object": "model"}]});
        let router = Router::new()
            .route("/v1/models", get(|| async { Json(list) }))
            .route("/v1/completions", post(said));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut serving = JoinSet::new();
        serving.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, _serving: serving }
    }
}
