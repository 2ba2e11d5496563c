//! A server with a fake backend, and its client.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use reqwest::{RequestBuilder, Response};
use serde_json::{Value, json};
use tightwad_core::{
    Backend, BackendError, Credentials, Event, FinishReason, Generator, Health, KeySpec, Load, Outcome,
    Report, Request, Right, Sink, TextLogprobs, Token, Usage, parse_date, sync,
};
use tightwad_net::door::Shutdown;
use time::{Duration, OffsetDateTime};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::keys::api_keys::ApiKeys;
use crate::keys::new_key::hash;
use crate::keys::utc_clock::UtcClock;
use crate::metrics::Metrics;
use crate::model_table::{ModelTable, ServedModels};
use crate::server::serve;
use crate::state::ServerState;

/// A backend that sends these events to each request and then ends.
pub(crate) struct FakeBackend {
    pub events: fn(&Request) -> Vec<Event>,
    pub end: Result<Outcome, BackendError>,
}

impl FakeBackend {
    /// A backend that sends these events and then stops.
    pub(crate) fn sending(events: fn(&Request) -> Vec<Event>) -> Self {
        Self { events, end: Ok(outcome(FinishReason::Stop)) }
    }

    /// A backend that fails before the first event.
    pub(crate) fn failing(error: BackendError) -> Self {
        Self { events: |_| Vec::new(), end: Err(error) }
    }
}

impl Backend for FakeBackend {
    fn name(&self) -> &str {
        "fake"
    }

    fn context(&self) -> Option<u32> {
        Some(2048)
    }

    fn load(&self) -> Load {
        Load { active: 2, waiting: 1 }
    }

    /// A backend that fails every request is unhealthy.
    fn health(&self) -> Health {
        self.end.as_ref().map_or_else(|error| Health::Failing(error.to_string()), |_| Health::Ready)
    }

    fn as_generator(&self) -> Option<&dyn Generator> {
        Some(self)
    }
}

#[async_trait]
impl Generator for FakeBackend {
    async fn generate(&self, request: Request, sink: Sink) -> Result<Outcome, BackendError> {
        for event in (self.events)(&request) {
            sink.send(event).await.map_err(|_| BackendError::Cancelled)?;
        }
        self.end.clone()
    }
}

/// An outcome of 5 prompt tokens, one of them cached, and 2 completion tokens.
pub(crate) fn outcome(finish: FinishReason) -> Outcome {
    let usage = Usage { prompt_tokens: 5, completion_tokens: 2, cached_tokens: 1 };
    let report = Report { mode: "plain".to_owned(), exact: true, ..Report::default() };
    Outcome { finish_reason: finish, usage, report }
}

/// The `tightwad` object of [`outcome`].
pub(crate) fn report() -> Value {
    json!({
        "mode": "plain", "exact": true, "rounds": 0, "drafted": 0, "accepted": 0, "wasted": 0, "ties": 0,
        "drafters": [], "plugins": [],
    })
}

/// An event of text only.
pub(crate) fn text(text: &str) -> Event {
    Event { text: text.to_owned(), logprobs: Vec::new() }
}

/// An event of one token with log-probabilities.
pub(crate) fn scored_event(text: &str) -> Event {
    let bytes = text.as_bytes().to_vec();
    let top = vec![(bytes.clone(), -0.5), (b"no".to_vec(), -1.5)];
    Event { text: text.to_owned(), logprobs: vec![TextLogprobs { bytes, logprob: -0.5, top }] }
}

/// A running server. Dropping it stops the server.
pub(crate) struct Server {
    url: String,
    http: reqwest::Client,
    _serving: JoinSet<()>,
}

impl Server {
    /// Starts a server with `backend` as the model `m`.
    pub(crate) async fn with_backend(backend: impl Backend + 'static) -> Self {
        Self::start(state(backend, None)).await
    }

    pub(crate) async fn start(state: ServerState) -> Self {
        Self::start_until(state, Shutdown::never()).await
    }

    pub(crate) async fn start_until(state: ServerState, shutdown: Shutdown) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut serving = JoinSet::new();
        serving.spawn(async move { serve(listener, state, shutdown).await.unwrap_or_default() });
        let http = tightwad_net::machine_client().build().unwrap();
        Self { url, http, _serving: serving }
    }

    /// The address that the server listens on.
    pub(crate) fn address(&self) -> &str {
        self.url.trim_start_matches("http://")
    }

    pub(crate) fn get(&self, path: &str) -> RequestBuilder {
        self.http.get(format!("{}{path}", self.url))
    }

    pub(crate) fn post(&self, path: &str) -> RequestBuilder {
        self.http.post(format!("{}{path}", self.url))
    }

    /// Sends a chat request with additional `fields`.
    pub(crate) async fn chat(&self, fields: Value) -> Response {
        let body = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]});
        self.post("/v1/chat/completions").json(&merge_fields(body, fields)).send().await.unwrap()
    }

    /// Sends a completion request with additional `fields`.
    pub(crate) async fn completion(&self, fields: Value) -> Response {
        let body = json!({"model": "m", "prompt": "hi"});
        self.post("/v1/completions").json(&merge_fields(body, fields)).send().await.unwrap()
    }
}

/// A server's state with `backend` as the model `m`.
pub(crate) fn state(backend: impl Backend + 'static, token: Option<Token>) -> ServerState {
    let models = ServedModels::new([("m".to_owned(), Arc::new(backend) as _)]);
    ServerState::new(Arc::new(ModelTable::new(models)), Arc::new(Metrics::default()), token)
}

fn merge_fields(mut body: Value, fields: Value) -> Value {
    for (name, value) in fields.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

/// The JSON of a response, with each random or timed value replaced by a placeholder.
pub(crate) async fn json_body(response: Response) -> Value {
    assert_eq!(response.status(), 200);
    mask(response.json().await.unwrap())
}

/// The events of a stream: JSON masked as by [`json_body`], and `[DONE]` as a string.
pub(crate) async fn events(response: Response) -> Vec<Value> {
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let body = response.text().await.unwrap();
    let data = body.strip_suffix("\n\n").unwrap().split("\n\n").map(|event| {
        let data = event.strip_prefix("data: ").unwrap();
        if data == "[DONE]" { Value::from(data) } else { mask(serde_json::from_str(data).unwrap()) }
    });
    data.collect()
}

fn mask(mut object: Value) -> Value {
    if let Some(id) = object["id"].as_str() {
        let (prefix, random) = id.split_once('-').unwrap();
        assert_eq!(random.len(), 32, "{id}");
        object["id"] = format!("{prefix}-ID").into();
        assert!(object["created"].as_u64().unwrap() > 1_700_000_000);
        object["created"] = "NOW".into();
    }
    let fingerprint = format!("tightwad-{}", env!("CARGO_PKG_VERSION"));
    if object["system_fingerprint"] == fingerprint.as_str() {
        object["system_fingerprint"] = "VERSION".into();
    }
    let choices = object.get_mut("choices").and_then(Value::as_array_mut);
    for choice in choices.into_iter().flatten() {
        for message in ["message", "delta"] {
            if let Some(call) = choice.pointer_mut(&format!("/{message}/tool_calls/0/id")) {
                assert!(call.as_str().unwrap().starts_with("call_"));
                *call = "call_ID".into();
            }
        }
    }
    object
}

/// A key with the right to chat and the secret `SECRET-NAME`.
pub(crate) fn key(name: &str) -> KeySpec {
    KeySpec {
        name: name.parse().unwrap(),
        hash: hash(format!("SECRET-{name}").as_bytes()),
        rights: [Right::Chat].into(),
        models: None,
        requests_per_minute: None,
        tokens_per_day: None,
        expires: None,
    }
}

/// A clock that only tests move.
#[derive(Clone)]
pub(crate) struct TestClock(Arc<Mutex<OffsetDateTime>>);

impl TestClock {
    /// A clock at 2027-01-30, 22:00 UTC.
    pub(crate) fn new() -> Self {
        let day = parse_date("2027-01-30").unwrap();
        Self(Arc::new(Mutex::new(day.midnight().assume_utc() + Duration::hours(22))))
    }

    pub(crate) fn advance(&self, time: Duration) {
        *sync::lock(&self.0) += time;
    }

    /// The credentials `keys` with this clock.
    pub(crate) fn api_keys(&self, keys: Vec<KeySpec>) -> Arc<ApiKeys> {
        let now = self.0.clone();
        let clock = UtcClock::from_fn(move || *sync::lock(&now));
        Arc::new(ApiKeys::with_clock(Credentials { token: None, keys }, clock))
    }
}
