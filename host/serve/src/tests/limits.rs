use std::num::{NonZeroU32, NonZeroU64};
use std::sync::Arc;

use async_trait::async_trait;
use reqwest::Response;
use serde_json::{Value, json};
use tightwad_core::{Backend, BackendError, Credentials, Generator, KeySpec, Outcome, Request, Right, Sink};
use time::Duration;

use crate::keys::api_keys::ApiKeys;
use crate::keys::usage_file::UsageFile;
use crate::keys::usage_saver::UsageSaver;
use crate::state::ServerState;
use crate::tests::fake::{FakeBackend, Server, TestClock, key, state, text};
use crate::tests::refusals::{error, refusal};

/// A server whose answers have 5 prompt and 2 completion tokens.
async fn server(keys: &Arc<ApiKeys>) -> Server {
    let state = state(FakeBackend::sending(|_| vec![text("Hi")]), None);
    Server::start(ServerState { keys: keys.clone(), ..state }).await
}

fn request_limit(per_minute: u32) -> KeySpec {
    KeySpec { requests_per_minute: NonZeroU32::new(per_minute), ..key("alice") }
}

fn token_limit(per_day: u64) -> KeySpec {
    KeySpec { tokens_per_day: NonZeroU64::new(per_day), ..key("alice") }
}

/// Sends a completion request of `alice` with additional `fields`.
async fn ask(server: &Server, fields: Value) -> Response {
    let mut body = json!({"model": "m", "prompt": "hi"});
    for (name, value) in fields.as_object().unwrap() {
        body[name] = value.clone();
    }
    server.post("/v1/completions").bearer_auth("SECRET-alice").json(&body).send().await.unwrap()
}

/// The limit, the rest and the reset of `kind` in the headers of `response`.
fn limit_headers<'a>(response: &'a Response, kind: &str) -> [Option<&'a str>; 3] {
    let value = |field: &str| response.headers().get(format!("x-ratelimit-{field}-{kind}"));
    ["limit", "remaining", "reset"].map(|field| value(field).map(|value| value.to_str().unwrap()))
}

/// The tokens of the only key.
fn tokens_today(keys: &ApiKeys) -> u64 {
    keys.status()[0]["tokens_today"].as_u64().unwrap()
}

#[tokio::test]
async fn requests_above_the_limit_of_a_minute_are_refused() {
    let clock = TestClock::new();
    let keys = clock.api_keys(vec![request_limit(2)]);
    let server = server(&keys).await;
    let first = ask(&server, json!({})).await;
    assert_eq!(first.status(), 200);
    assert_eq!(limit_headers(&first, "requests"), [Some("2"), Some("1"), Some("30s")]);
    assert_eq!(limit_headers(&first, "tokens"), [None; 3]);
    let second = ask(&server, json!({"stream": true})).await;
    assert_eq!(second.status(), 200);
    assert_eq!(limit_headers(&second, "requests"), [Some("2"), Some("0"), Some("1m0s")]);
    let third = ask(&server, json!({})).await;
    assert_eq!(limit_headers(&third, "requests"), [Some("2"), Some("0"), Some("1m0s")]);
    assert_eq!(third.headers()["retry-after"], "30");
    let message = "the API key 'alice' may send 2 requests per minute; try again in 30 s";
    let expected = error("rate_limit_error", message, None, Some("rate_limit_exceeded"));
    assert_eq!(refusal(third).await, (429, expected));
    // Paths that do not generate have no limit.
    let list = server.get("/v1/models").bearer_auth("SECRET-alice").send().await.unwrap();
    assert_eq!(list.status(), 200);
    clock.advance(Duration::seconds(30));
    assert_eq!(ask(&server, json!({})).await.status(), 200);
    assert_eq!(ask(&server, json!({})).await.status(), 429);
}

#[tokio::test]
async fn request_after_the_tokens_of_a_day_is_refused() {
    let clock = TestClock::new();
    let keys = clock.api_keys(vec![token_limit(10)]);
    let server = server(&keys).await;
    let first = ask(&server, json!({})).await;
    assert_eq!(first.status(), 200);
    assert_eq!(limit_headers(&first, "tokens"), [Some("10"), Some("3"), Some("2h0m0s")]);
    assert_eq!(limit_headers(&first, "requests"), [None; 3]);
    // This request begins below the limit and ends above it.
    assert_eq!(ask(&server, json!({})).await.status(), 200);
    let third = ask(&server, json!({})).await;
    assert_eq!(limit_headers(&third, "tokens"), [Some("10"), Some("0"), Some("2h0m0s")]);
    assert_eq!(third.headers()["retry-after"], "7200");
    assert_eq!(third.headers()["x-should-retry"], "false");
    let message = "the API key 'alice' has used its 10 tokens of this day (UTC); try again in 2h0m0s";
    let expected = error("insufficient_quota", message, None, Some("insufficient_quota"));
    assert_eq!(refusal(third).await, (429, expected));
    clock.advance(Duration::hours(2));
    assert_eq!(ask(&server, json!({})).await.status(), 200);
    assert_eq!(tokens_today(&keys), 7);
}

#[tokio::test]
async fn every_kind_of_answer_is_charged() {
    let keys = TestClock::new().api_keys(vec![key("alice")]);
    let server = server(&keys).await;
    let mut expected = 0;
    for (fields, tokens) in [
        (json!({}), 7),
        (json!({"stream": true}), 7),
        // Choices of the same prompt pay for it once.
        (json!({"n": 3}), 5 + 3 * 2),
        (json!({"prompt": ["a", "b"], "n": 2}), 2 * (5 + 2 * 2)),
        (json!({"n": 0}), 0),
        (json!({"model": "gone"}), 0),
    ] {
        ask(&server, fields.clone()).await.bytes().await.unwrap();
        expected += tokens;
        assert_eq!(tokens_today(&keys), expected, "{fields}");
    }
}

/// A backend that counts 100 prompt and 3 completion tokens, sends two events and then waits for ever.
struct EndlessBackend;

impl Backend for EndlessBackend {
    fn name(&self) -> &str {
        "endless"
    }

    fn as_generator(&self) -> Option<&dyn Generator> {
        Some(self)
    }
}

#[async_trait]
impl Generator for EndlessBackend {
    async fn generate(&self, request: Request, sink: Sink) -> Result<Outcome, BackendError> {
        request.meter.add_prompt(100);
        for _ in 0..3 {
            request.meter.add_token();
        }
        for part in ["two tokens", "one"] {
            sink.send(text(part)).await.map_err(|_| BackendError::Cancelled)?;
        }
        std::future::pending().await
    }
}

#[tokio::test]
async fn client_that_disconnects_pays_for_tokens_so_far() {
    let keys = TestClock::new().api_keys(vec![key("alice")]);
    let server = Server::start(ServerState { keys: keys.clone(), ..state(EndlessBackend, None) }).await;
    let mut response = ask(&server, json!({"stream": true})).await;
    assert!(response.chunk().await.unwrap().is_some());
    assert_eq!(tokens_today(&keys), 0, "the request still runs");
    drop(response);
    let charged = async {
        while tokens_today(&keys) == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), charged).await.unwrap();
    assert_eq!(tokens_today(&keys), 103);
}

#[tokio::test]
async fn reload_keeps_usage_of_keys_that_remain() {
    let keys = TestClock::new().api_keys(vec![token_limit(10)]);
    let server = server(&keys).await;
    assert_eq!(ask(&server, json!({})).await.status(), 200);
    keys.replace(Credentials { token: None, keys: vec![token_limit(7)] });
    assert_eq!(ask(&server, json!({})).await.status(), 429, "the new limit is used up");
    keys.replace(Credentials { token: None, keys: vec![key("bob")] });
    assert_eq!(ask(&server, json!({})).await.status(), 401);
    keys.replace(Credentials { token: None, keys: vec![token_limit(7)] });
    assert_eq!(ask(&server, json!({})).await.status(), 429, "the key is the same again");
    // A new secret under the same name is another key.
    let other = KeySpec { hash: key("other").hash, ..token_limit(7) };
    keys.replace(Credentials { token: None, keys: vec![other] });
    assert_eq!(tokens_today(&keys), 0);
}

#[tokio::test]
async fn usage_survives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let file = || UsageFile::at(folder.path().join("key-usage.json"));
    let clock = TestClock::new();
    let alice = KeySpec { requests_per_minute: NonZeroU32::new(1), ..token_limit(1000) };
    let keys = clock.api_keys(vec![alice.clone()]);
    let saver = UsageSaver::start(keys.clone(), Some(file()));
    assert_eq!(ask(&server(&keys).await, json!({})).await.status(), 200);
    saver.finish().await;
    // The key comes with a later reload of the script.
    let keys = clock.api_keys(vec![key("bob")]);
    let _saver = UsageSaver::start(keys.clone(), Some(file()));
    keys.replace(Credentials { token: None, keys: vec![alice] });
    assert_eq!(tokens_today(&keys), 7);
    let refused = ask(&server(&keys).await, json!({})).await;
    assert_eq!((refused.status().as_u16(), &refused.headers()["retry-after"]), (429, &"60".parse().unwrap()));
}

#[tokio::test(start_paused = true)]
async fn usage_is_saved_while_the_server_runs() {
    let folder = tempfile::tempdir().unwrap();
    let file = UsageFile::at(folder.path().join("key-usage.json"));
    let keys = TestClock::new().api_keys(vec![key("alice")]);
    let _saver = UsageSaver::start(keys.clone(), Some(file.clone()));
    tokio::time::sleep(std::time::Duration::from_secs(6)).await;
    assert!(!file.path().exists(), "nothing has changed yet");
    assert!(keys.authenticate(Some(b"SECRET-alice")).is_ok_and(|client| {
        client.key().unwrap().charge(9);
        true
    }));
    tokio::time::sleep(std::time::Duration::from_secs(6)).await;
    assert_eq!(file.load().unwrap(), keys.usages());
}

#[tokio::test]
async fn corrupt_file_does_not_stop_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let file = UsageFile::at(folder.path().join("key-usage.json"));
    std::fs::write(file.path(), "{").unwrap();
    let keys = TestClock::new().api_keys(vec![token_limit(10)]);
    let saver = UsageSaver::start(keys.clone(), Some(file.clone()));
    assert_eq!(ask(&server(&keys).await, json!({})).await.status(), 200);
    saver.finish().await;
    assert_eq!(file.load().unwrap(), keys.usages());
}

#[tokio::test]
async fn status_and_metrics_show_usage_by_key() {
    let observer = KeySpec { rights: [Right::Observe].into(), ..key("observer") };
    let alice = KeySpec { requests_per_minute: NonZeroU32::new(1), ..token_limit(50) };
    let keys = TestClock::new().api_keys(vec![observer, alice]);
    let server = server(&keys).await;
    assert_eq!(ask(&server, json!({})).await.status(), 200);
    assert_eq!(ask(&server, json!({})).await.status(), 429);
    let get = |path: &str| server.get(path).bearer_auth("SECRET-observer").send();
    let status: Value = get("/v1/tightwad/status").await.unwrap().json().await.unwrap();
    let alice = json!({
        "name": "alice", "rights": ["chat"], "models": null, "requests_per_minute": 1, "requests_remaining": 0,
        "tokens_per_day": 50, "tokens_today": 7, "expires": null,
    });
    assert_eq!(status["keys"][0], alice);
    assert_eq!(status["keys"][1]["name"], "observer");
    assert_eq!(server.get("/metrics").bearer_auth("nonsense").send().await.unwrap().status(), 401);
    let metrics = get("/metrics").await.unwrap().text().await.unwrap();
    for line in [
        "tightwad_key_requests_total{key=\"alice\"} 1",
        "tightwad_key_tokens_total{key=\"alice\"} 7",
        "tightwad_key_refusals_total{key=\"alice\",reason=\"requests_per_minute\"} 1",
        "tightwad_key_refusals_total{key=\"\",reason=\"invalid_key\"} 1",
    ] {
        assert!(metrics.lines().any(|metric| metric == line), "{line} is missing in:\n{metrics}");
    }
}
