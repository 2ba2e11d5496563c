//! The endpoint behind the door: readiness, web pages and shutdown.

use std::time::Duration;

use axum::Router;
use axum::routing::post;
use serde_json::{Value, json};
use tightwad_core::{Credentials, Token};
use tightwad_net::door::Shutdown;
use tokio::sync::{mpsc, oneshot};

use crate::model_table::ServedModels;
use crate::tests::fake::{FakeBackend, Server, events, state, text};
use crate::tests::stream::EndlessBackend;

fn backend() -> FakeBackend {
    FakeBackend::sending(|_| vec![text("Hi")])
}

#[tokio::test]
async fn endpoint_stands_behind_the_door() {
    let server = Server::with_backend(backend()).await;
    for path in ["/v1/models", "/metrics", "/v1/tightwad/status"] {
        let rebound = server.get(path).header("host", "evil.example").send().await.unwrap();
        assert_eq!(rebound.status(), 421, "{path}");
        let foreign = server.get(path).header("origin", "http://evil.example").send().await.unwrap();
        assert_eq!(foreign.status(), 403, "{path}");
    }
    let body = json!({"model": "m", "prompt": "hi"}).to_string();
    let form = server.post("/v1/completions").header("content-type", "text/plain").body(body);
    assert_eq!(form.send().await.unwrap().status(), 415);
    assert_eq!(server.get("//v1/models/").send().await.unwrap().status(), 200);
    let missing: Value = server.get("/models").send().await.unwrap().json().await.unwrap();
    assert_eq!(missing["error"]["message"], "the path /models does not exist; did you mean /v1/models?");
}

/// A node merges the routes of its protocol and of its seeder.
#[tokio::test]
async fn further_routes_stand_behind_the_door() {
    let route = |path| Router::new().route(path, post(async || "done"));
    let state = state(backend(), None)
        .with_guarded_routes(route("/v1/node/score"))
        .with_extra_routes(route("/v1/swarm"));
    let server = Server::start(state).await;
    for path in ["/v1/node/score", "/v1/swarm"] {
        let post = || server.post(path);
        assert_eq!(post().send().await.unwrap().status(), 200, "{path}");
        assert_eq!(post().header("host", "evil.example").send().await.unwrap().status(), 421, "{path}");
        assert_eq!(
            post().header("sec-fetch-site", "cross-site").send().await.unwrap().status(),
            403,
            "{path}"
        );
        assert_eq!(post().body("{}").send().await.unwrap().status(), 415, "{path}");
    }
}

#[tokio::test]
async fn token_frees_the_host_name() {
    let state = state(backend(), Some(Token::new("secret").unwrap()));
    let keys = state.keys().clone();
    let server = Server::start(state).await;
    let ask = async || server.get("/v1/models").header("host", "box.example").send().await.unwrap().status();
    assert_eq!(ask().await, 401);
    keys.replace(Credentials::default());
    assert_eq!(ask().await, 421);
}

#[tokio::test]
async fn readiness_counts_the_models() {
    let state = state(backend(), None);
    let models = state.models.clone();
    let server = Server::start(state).await;
    let ready = server.get("/ready").send().await.unwrap();
    assert_eq!(ready.status(), 200);
    assert_eq!(ready.json::<Value>().await.unwrap(), json!({"status": "ready", "models": 1}));
    models.replace(ServedModels::new([]));
    assert_eq!(server.get("/ready").send().await.unwrap().status(), 503);
    assert_eq!(server.get("/health").send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn stream_ends_with_an_error_and_done_at_the_deadline() {
    let (signal, signalled) = oneshot::channel::<()>();
    let shutdown = Shutdown::after(async move { drop(signalled.await) }, Duration::from_millis(50));
    let (reports, mut reported) = mpsc::unbounded_channel();
    let server = Server::start_until(state(EndlessBackend(reports), None), shutdown).await;
    let response = server.chat(json!({"stream": true})).await;
    signal.send(()).unwrap();
    let actual = events(response).await;
    assert_eq!(actual.len(), 4, "{actual:?}");
    assert_eq!(actual[1]["choices"][0]["delta"], json!({"content": "Hi"}));
    assert_eq!(
        (&actual[2]["error"]["type"], &actual[2]["error"]["code"]),
        (&json!("server_error"), &json!("shutting_down"))
    );
    assert_eq!(actual[3], "[DONE]");
    assert_eq!((reported.recv().await, reported.recv().await), (Some("began"), Some("closed")));
}

#[tokio::test]
async fn request_without_a_stream_is_a_503_at_the_deadline() {
    let (reports, mut reported) = mpsc::unbounded_channel();
    let (signal, signalled) = oneshot::channel::<()>();
    let shutdown = Shutdown::after(async move { drop(signalled.await) }, Duration::from_millis(50));
    let server = Server::start_until(state(EndlessBackend(reports), None), shutdown).await;
    let request =
        tokio::spawn(server.post("/v1/completions").json(&json!({"model": "m", "prompt": "hi"})).send());
    assert_eq!(reported.recv().await, Some("began"));
    signal.send(()).unwrap();
    let response = request.await.unwrap().unwrap();
    assert_eq!((response.status().as_u16(), response.headers()["retry-after"].to_str().unwrap()), (503, "1"));
    assert_eq!(reported.recv().await, Some("closed"));
}
