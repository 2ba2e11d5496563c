use std::sync::Arc;

use axum::routing::get;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tightwad_core::{Credentials, KeySpec, Right, Token, parse_date};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::model_table::{ModelTable, ServedModels};
use crate::state::ServerState;
use crate::tests::fake::{FakeBackend, Server, TestClock, key, state, text};
use crate::tests::refusals::{error, refusal};

fn state_with(keys: Vec<KeySpec>) -> ServerState {
    let api_keys = TestClock::new().api_keys(keys);
    ServerState { keys: api_keys, ..state(FakeBackend::sending(|_| vec![text("Hi")]), None) }
}

async fn server(keys: Vec<KeySpec>) -> Server {
    Server::start(state_with(keys)).await
}

/// The error of a request with an invalid key.
fn invalid_key(message: &str) -> (u16, Value) {
    (401, error("invalid_request_error", message, None, Some("invalid_api_key")))
}

#[tokio::test]
async fn key_is_read_from_either_header() {
    let server = server(vec![key("alice")]).await;
    for (name, value) in [
        ("authorization", "Bearer SECRET-alice"),
        ("authorization", "bearer   SECRET-alice"),
        ("x-api-key", "SECRET-alice"),
        ("x-api-key", " SECRET-alice "),
    ] {
        let response = server.get("/v1/models").header(name, value).send().await.unwrap();
        assert_eq!(response.status(), 200, "{name}: {value}");
    }
    let request = server.get("/v1/models").basic_auth("user", Some("proxy"));
    assert_eq!(request.header("x-api-key", "SECRET-alice").send().await.unwrap().status(), 200);
    let request = server.get("/v1/models").bearer_auth("wrong").header("x-api-key", "SECRET-alice");
    assert_eq!(request.send().await.unwrap().status(), 401, "the bearer token comes first");
}

#[tokio::test]
async fn missing_and_wrong_keys_are_unauthorized() {
    let server = server(vec![key("alice")]).await;
    let missing = invalid_key("the request has no API key; send 'Authorization: Bearer KEY'");
    let wrong = invalid_key("the API key is wrong; use a key that this host's operator gave you");
    let hash = key("alice").hash.to_string();
    for (request, expected) in [
        (server.get("/v1/models"), &missing),
        (server.get("/v1/models").header("authorization", "Bearer "), &missing),
        (server.get("/v1/models").header("authorization", "Basic SECRET-alice"), &missing),
        (server.get("/v1/models").bearer_auth("SECRET-bob"), &wrong),
        (server.get("/v1/models").bearer_auth("secret-alice"), &wrong),
        (server.get("/v1/models").bearer_auth(hash), &wrong),
        (server.get("/v1/models").header("x-api-key", ""), &wrong),
    ] {
        let response = request.send().await.unwrap();
        assert_eq!(response.headers()["www-authenticate"], "Bearer");
        assert_eq!(&refusal(response).await, expected);
    }
    assert_eq!(server.get("/health").send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn key_expires_after_its_last_day() {
    // The clock shows 2027-01-30, 22:00.
    let clock = TestClock::new();
    let keys = clock.api_keys(vec![KeySpec { expires: parse_date("2027-01-30"), ..key("alice") }]);
    let server = Server::start(ServerState { keys, ..state_with(Vec::new()) }).await;
    let request = || server.get("/v1/models").bearer_auth("SECRET-alice").send();
    assert_eq!(request().await.unwrap().status(), 200);
    clock.advance(time::Duration::hours(2));
    let message = "the API key 'alice' expired after 2027-01-30; ask this host's operator for a new one";
    assert_eq!(refusal(request().await.unwrap()).await, invalid_key(message));
}

#[tokio::test]
async fn every_path_needs_its_right() {
    let of = |right: Right| KeySpec { rights: [right].into(), ..key(right.name()) };
    let all = KeySpec { rights: Right::ALL.into(), ..key("all") };
    let node_routes = axum::Router::new().route("/v1/node/sessions", get(async || "ok"));
    let keys = Right::ALL.map(of).into_iter().chain([all]).collect();
    let server = Server::start(state_with(keys).with_guarded_routes(node_routes)).await;
    for (method, path, right) in [
        (Method::POST, "/v1/chat/completions", Some(Right::Chat)),
        (Method::POST, "/v1/completions", Some(Right::Chat)),
        (Method::GET, "/v1/models", Some(Right::Chat)),
        (Method::GET, "/v1/models/m", Some(Right::Chat)),
        (Method::GET, "/v1/tightwad/status", Some(Right::Observe)),
        (Method::GET, "/metrics", Some(Right::Observe)),
        (Method::POST, "/v1/tightwad/models/m/load", Some(Right::Manage)),
        (Method::POST, "/v1/tightwad/models/m/unload", Some(Right::Manage)),
        (Method::GET, "/v1/node/sessions", None),
    ] {
        for name in Right::ALL.map(Right::name).into_iter().chain(["all"]) {
            let request = if method == Method::POST { server.post(path) } else { server.get(path) };
            let response = request.bearer_auth(format!("SECRET-{name}")).send().await.unwrap();
            let is_allowed = name == "all" || right.is_some_and(|right| right.name() == name);
            assert_eq!(response.status() != StatusCode::FORBIDDEN, is_allowed, "{path} with {name}");
            assert_ne!(response.status(), 401, "{path} with {name}");
        }
        let request = if method == Method::POST { server.post(path) } else { server.get(path) };
        assert_eq!(request.send().await.unwrap().status(), 401, "{path} without a key");
    }
    let response = server.get("/metrics").bearer_auth("SECRET-chat").send().await.unwrap();
    let message = "this path needs the right 'observe'; the API key 'chat' has 'chat'";
    assert_eq!(refusal(response).await, (403, error("invalid_request_error", message, None, None)));
}

#[tokio::test]
async fn token_beside_keys_has_all_rights() {
    let state = state_with(Vec::new());
    assert!(state.keys().accepts_everyone());
    let token = Token::new("the-token").ok();
    state.keys().replace(Credentials { token, keys: vec![key("alice")] });
    assert!(!state.keys().accepts_everyone());
    let server = Server::start(state).await;
    for (secret, status) in [("the-token", 200), ("SECRET-alice", 403), ("the-toke", 401)] {
        let response = server.get("/v1/tightwad/status").bearer_auth(secret).send().await.unwrap();
        assert_eq!(response.status(), status, "{secret}");
    }
}

#[tokio::test]
async fn key_sees_only_its_models() {
    let alice = KeySpec { models: Some(["small".to_owned()].into()), ..key("alice") };
    let backend = || Arc::new(FakeBackend::sending(|_| vec![text("Hi")])) as _;
    let models = ["big", "small"].map(|name| (name.to_owned(), backend()));
    let models = Arc::new(ModelTable::new(ServedModels::new(models)));
    let server = Server::start(ServerState { models, ..state_with(vec![alice, key("bob")]) }).await;
    let names = async |secret: &str| {
        let list: Value =
            server.get("/v1/models").bearer_auth(secret).send().await.unwrap().json().await.unwrap();
        list["data"].as_array().unwrap().iter().map(|model| model["id"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(names("SECRET-alice").await, ["small"]);
    assert_eq!(names("SECRET-bob").await, ["big", "small"]);
    let ask = |model: &str| {
        let body = json!({"model": model, "prompt": "hi"});
        server.post("/v1/completions").bearer_auth("SECRET-alice").json(&body).send()
    };
    assert_eq!(ask("small").await.unwrap().status(), 200);
    // A model of other keys looks like a model that does not exist.
    for name in ["big", "gone"] {
        let message = format!("there is no model '{name}'; this server has: small");
        let expected = error("invalid_request_error", &message, Some("model"), Some("model_not_found"));
        assert_eq!(refusal(ask(name).await.unwrap()).await, (404, expected.clone()));
        let shown = server.get(&format!("/v1/models/{name}")).bearer_auth("SECRET-alice").send().await;
        assert_eq!(refusal(shown.unwrap()).await, (404, expected));
    }
}

#[tokio::test]
async fn request_is_refused_before_its_body_arrives() {
    let server = server(vec![key("alice")]).await;
    let mut connection = TcpStream::connect(server.address()).await.unwrap();
    let head = "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer wrong\r\n\
                content-type: application/json\r\ncontent-length: 1000\r\n\r\n";
    connection.write_all(head.as_bytes()).await.unwrap();
    let mut status = [0; 12];
    connection.read_exact(&mut status).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 401");
}

#[tokio::test]
async fn new_keys_replace_old_ones_at_once() {
    let state = state_with(vec![key("alice")]);
    let keys = state.keys().clone();
    let server = Server::start(state).await;
    let status = async |secret: &str| {
        server.get("/v1/models").bearer_auth(secret).send().await.unwrap().status().as_u16()
    };
    assert_eq!((status("SECRET-alice").await, status("SECRET-bob").await), (200, 401));
    keys.replace(Credentials { token: None, keys: vec![key("bob")] });
    assert_eq!((status("SECRET-alice").await, status("SECRET-bob").await), (401, 200));
}
