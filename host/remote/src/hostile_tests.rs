//! Servers that stay silent, never end, or send wrong values.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use tightwad_core::{BackendError, Request, Token};
use tokio::net::TcpListener;

use crate::client::Client;
use crate::dialect::Dialect;
use crate::events::AnswerStream;
use crate::fake_server::{FakeServer, streamed_response};
use crate::spec::{DEFAULT_FIRST_TOKEN_TIMEOUT, TextServerSpec};

const SHORT_TIMEOUT: Duration = Duration::from_millis(50);

/// A body that repeats `part` every millisecond and never ends.
fn endless(part: &'static str) -> Body {
    Body::from_stream(stream::repeat(part).then(|part| async move {
        tokio::time::sleep(Duration::from_millis(1)).await;
        Ok::<_, std::convert::Infallible>(part)
    }))
}

/// A client with the name `far` and the API key `sk-secret`.
async fn client(server: &FakeServer) -> Arc<Client> {
    client_with_timeout(server, DEFAULT_FIRST_TOKEN_TIMEOUT).await
}

async fn client_with_timeout(server: &FakeServer, first_token_timeout: Duration) -> Arc<Client> {
    let spec = TextServerSpec {
        name: Some("far".to_owned()),
        api_key: Some(Token::new("sk-secret").unwrap()),
        first_token_timeout,
        ..server.spec(Dialect::OpenAi)
    };
    Arc::new(Client::connect(&spec).await.unwrap())
}

/// Reads a whole answer. Returns its text and the number of its tokens.
async fn answer(client: &Arc<Client>) -> Result<(String, u32), BackendError> {
    let mut events = AnswerStream::start(client, &Request::default()).await?;
    let mut text = String::new();
    while let Some(piece) = events.next().await? {
        text.push_str(&piece.text);
    }
    Ok((text, events.usage().completion_tokens))
}

/// The error of an answer with the body `events`.
async fn error_of(events: Vec<String>) -> String {
    let body = events.into_iter().map(|event| format!("data: {event}\n\n")).collect::<String>();
    let server = FakeServer::start(move || streamed_response(&[body.as_bytes()], false)).await;
    let spec = server.spec(Dialect::OpenAi);
    answer(&Arc::new(Client::connect(&spec).await.unwrap())).await.unwrap_err().to_string()
}

#[tokio::test]
async fn silent_server_fails_over() {
    let silent = || Body::from_stream(stream::pending::<Result<String, std::io::Error>>()).into_response();
    let server = FakeServer::start(silent).await;
    let error = answer(&client_with_timeout(&server, SHORT_TIMEOUT).await).await.unwrap_err();
    assert!(error.allows_failover(), "{error}");
    assert!(error.to_string().starts_with("far failed: no "), "{error}");
}

#[tokio::test]
async fn comments_are_not_tokens() {
    for part in [": still here\n\n", "\n", ":"] {
        let server = FakeServer::start(move || endless(part).into_response()).await;
        let error = answer(&client_with_timeout(&server, SHORT_TIMEOUT).await).await.unwrap_err();
        assert!(error.allows_failover(), "{error}");
    }
}

#[tokio::test]
async fn server_that_accepts_and_stays_silent_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = FakeServer::start(|| StatusCode::OK.into_response()).await;
    let url = format!("http://{}", listener.local_addr().unwrap());
    let connect = async {
        Client::connect(&TextServerSpec { url, ..server.spec(Dialect::OpenAi) }).await.err().unwrap()
    };
    tokio::time::pause();
    let error = connect.await.to_string();
    assert!(error.contains(" does not reply: "), "{error}");
}

#[tokio::test]
async fn error_has_a_short_excerpt_without_url_and_token() {
    let body = format!("<html>\u{1b}[31m bad key sk-secret {}", "x y ".repeat(30_000));
    let server =
        FakeServer::start(move || (StatusCode::INTERNAL_SERVER_ERROR, body.clone()).into_response()).await;
    let error = answer(&client(&server).await).await.unwrap_err().to_string();
    let expected = "far failed: 500 Internal Server Error: <html> [31m bad key [token] x y";
    assert!(error.starts_with(expected), "{error}");
    assert!(error.chars().count() < 300 && !error.contains("http"), "{error}");
}

#[tokio::test]
async fn endless_error_is_cut() {
    let text = "no memory ".repeat(1000).leak();
    let reply = || (StatusCode::BAD_GATEWAY, endless(text)).into_response();
    let server = FakeServer::start(reply).await;
    let error = answer(&client(&server).await).await.unwrap_err().to_string();
    assert!(error.starts_with("far failed: 502 Bad Gateway"), "{error}");
}

#[tokio::test]
async fn answer_with_too_much_text_is_refused() {
    let event = json!({"choices": [{"text": "x".repeat(1_000_000)}]}).to_string();
    assert_eq!(error_of(vec![event; 17]).await, "m failed: the answer has more than 16 MiB");
}

#[tokio::test]
async fn flood_of_tool_calls_is_refused() {
    let calls = vec![json!({}); 100_000];
    let event = json!({"choices": [{"delta": {"tool_calls": calls}}]}).to_string();
    assert_eq!(error_of(vec![event; 3]).await, "m failed: the answer has more than 16 MiB");
}

#[tokio::test]
async fn event_of_more_than_a_megabyte_is_refused() {
    let error = error_of(vec!["x".repeat(2 << 20)]).await;
    assert_eq!(error, "m failed: the reply has a line of more than 1048576 bytes");
}

#[tokio::test]
async fn wrong_types_are_an_error() {
    for event in
        [json!(5), json!({"choices": 7}), json!({"choices": [{"delta": {"content": [1]}}]}), json!([])]
    {
        assert_eq!(error_of(vec![event.to_string()]).await, "m failed: the answer ended early");
    }
}

#[tokio::test]
async fn draft_with_too_much_text_is_refused() {
    let reply = json!({"choices": [{"text": "x".repeat(9000)}]}).to_string();
    let server = FakeServer::start(move || reply.clone().into_response()).await;
    let error = client(&server).await.continue_text("a", 8).await.unwrap_err().to_string();
    assert_eq!(error, "far failed: its reply has more text than the call asked for");
}

#[tokio::test]
async fn counts_of_tokens_are_limited() {
    let event = json!({"choices": [{"text": "x", "finish_reason": "stop"}],
        "usage": {"prompt_tokens": u64::MAX, "completion_tokens": u64::MAX}});
    let body = format!("data: {event}\n\ndata: [DONE]\n\n");
    let server = FakeServer::start(move || streamed_response(&[body.as_bytes()], false)).await;
    assert_eq!(answer(&client(&server).await).await.unwrap(), ("x".to_owned(), 1 << 28));
}

/// A reply with a short answer.
fn short_answer() -> Response {
    let text = "data: {\"choices\":[{\"text\":\"ok\",\"finish_reason\":\"stop\"}]}\n\n";
    streamed_response(&[text.as_bytes()], false)
}

#[tokio::test]
async fn field_that_the_server_refuses_is_left_out() {
    let refused = Arc::new(AtomicBool::new(false));
    let first = refused.clone();
    let server = FakeServer::start(move || match first.swap(true, Ordering::SeqCst) {
        false => (StatusCode::UNPROCESSABLE_ENTITY, "extra field: stream_options").into_response(),
        true => short_answer(),
    })
    .await;
    let client = client(&server).await;
    for _ in 0..2 {
        assert_eq!(answer(&client).await.unwrap().0, "ok");
    }
    let asks_usage = |(_, body): (String, Value)| body.get("stream_options").is_some();
    assert_eq!(server.requests().into_iter().map(asks_usage).collect::<Vec<_>>(), [true, false, false]);
}

#[tokio::test]
async fn invalid_request_is_reported_once_the_field_is_accepted() {
    let accepted = Arc::new(AtomicBool::new(false));
    let first = accepted.clone();
    let server = FakeServer::start(move || match first.swap(true, Ordering::SeqCst) {
        false => short_answer(),
        true => (StatusCode::BAD_REQUEST, "too long").into_response(),
    })
    .await;
    let client = client(&server).await;
    assert!(answer(&client).await.is_ok());
    let error = answer(&client).await.unwrap_err();
    assert!(matches!(&error, BackendError::Invalid { message, .. } if message == "far: too long"), "{error}");
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn version_in_the_address_replaces_v1() {
    let server = FakeServer::start(short_answer).await;
    for (path, expected) in [("/v1", "/v1/completions"), ("/v1beta/openai/", "/v1beta/openai/completions")] {
        let spec = server.spec(Dialect::OpenAi);
        let spec = TextServerSpec { url: format!("{}{path}", server.url), ..spec };
        assert_eq!(answer(&Arc::new(Client::connect(&spec).await.unwrap())).await.unwrap().0, "ok");
        assert_eq!(server.requests().last().unwrap().0, expected);
    }
}

#[tokio::test]
async fn password_in_the_address_is_refused_and_not_shown() {
    let server = FakeServer::start(short_answer).await;
    let url = server.url.replace("http://", "http://user:secret@");
    let error = Client::connect(&TextServerSpec { url, ..server.spec(Dialect::OpenAi) }).await.err().unwrap();
    let error = error.to_string();
    assert!(error.contains("must not have a user name or a password"), "{error}");
    assert!(!error.contains("secret"), "{error}");
}
