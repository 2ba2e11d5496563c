use std::time::Duration;

use async_trait::async_trait;
use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use futures_util::StreamExt;
use serde_json::json;
use tightwad_core::{Backend, BackendError, Generator, Outcome, Request, Sink};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::handlers;
use crate::keys::client::Client;
use crate::state::ServerState;
use crate::tests::fake::{FakeBackend, state, text};

/// A backend that is busy for a minute and then fails.
struct BusyBackend;

/// A backend that sends events until the sink closes, and then reports that.
struct EagerBackend(mpsc::UnboundedSender<()>);

impl Backend for BusyBackend {
    fn name(&self) -> &str {
        "busy"
    }

    fn as_generator(&self) -> Option<&dyn Generator> {
        Some(self)
    }
}

#[async_trait]
impl Generator for BusyBackend {
    async fn generate(&self, _: Request, _: Sink) -> Result<Outcome, BackendError> {
        tokio::time::sleep(Duration::from_secs(60)).await;
        Err(BackendError::failed("busy", "out of luck"))
    }
}

impl Backend for EagerBackend {
    fn name(&self) -> &str {
        "eager"
    }

    fn as_generator(&self) -> Option<&dyn Generator> {
        Some(self)
    }
}

#[async_trait]
impl Generator for EagerBackend {
    async fn generate(&self, _: Request, sink: Sink) -> Result<Outcome, BackendError> {
        // Dropping the future drops the slot of a real backend.
        let _report = ReportOnDrop(self.0.clone());
        while sink.send(text("Hi")).await.is_ok() {}
        Err(BackendError::Cancelled)
    }
}

struct ReportOnDrop(mpsc::UnboundedSender<()>);

impl Drop for ReportOnDrop {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

async fn stream(state: &ServerState) -> Response {
    let body = json!({"model": "m", "stream": true, "messages": [{"role": "user", "content": "hi"}]});
    handlers::chat(State(state.clone()), Extension(Client::Unrestricted), Body::from(body.to_string())).await
}

#[tokio::test(start_paused = true)]
async fn client_of_a_busy_model_gets_headers_and_comments() {
    let start = Instant::now();
    let response = stream(&state(BusyBackend, None)).await;
    assert_eq!(response.status(), 200);
    assert!(start.elapsed() <= Duration::from_secs(10), "{:?}", start.elapsed());
    let mut body = response.into_body().into_data_stream();
    assert_eq!(body.next().await.unwrap().unwrap(), ": waiting\n\n");
    assert!(start.elapsed() <= Duration::from_secs(10), "{:?}", start.elapsed());
    let (mut last, mut end) = (Instant::now(), String::new());
    while let Some(chunk) = body.next().await {
        let chunk = String::from_utf8(chunk.unwrap().to_vec()).unwrap();
        assert!(last.elapsed() <= Duration::from_secs(10), "{:?}", last.elapsed());
        last = Instant::now();
        if !chunk.starts_with(':') {
            end.push_str(&chunk);
        }
    }
    let error = json!({"error": {
        "message": "busy failed: out of luck", "type": "server_error", "param": null, "code": null,
    }});
    assert_eq!(end, format!("data: {error}\n\ndata: [DONE]\n\n"));
}

#[tokio::test(start_paused = true)]
async fn generation_ends_at_once_when_the_stream_is_dropped() {
    let (report, mut reported) = mpsc::unbounded_channel();
    let state = state(EagerBackend(report), None);
    let response = stream(&state).await;
    let start = Instant::now();
    drop(response);
    assert_eq!(reported.recv().await, Some(()));
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn generation_ends_when_the_client_reads_nothing() {
    let (report, mut reported) = mpsc::unbounded_channel();
    let state = state(EagerBackend(report), None);
    let response = stream(&state).await;
    let start = Instant::now();
    assert_eq!(reported.recv().await, Some(()));
    assert!(start.elapsed() <= Duration::from_secs(60));
    // A client that reads again gets the buffered events and the reason.
    let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
    let body = String::from_utf8(body.to_vec()).unwrap();
    assert!(body.contains("the client read nothing for 60 s"), "{body}");
    assert!(body.ends_with("data: [DONE]\n\n"), "{body}");
}

#[tokio::test]
async fn metrics_count_each_request_once() {
    let state = state(FakeBackend::sending(|_| vec![text("Hi")]), None);
    let chat = async |body: &str| {
        handlers::chat(State(state.clone()), Extension(Client::Unrestricted), Body::from(body.to_owned()))
            .await
    };
    assert_eq!(chat("{").await.status(), 400);
    assert_eq!(
        chat(r#"{"model": "x", "messages": [{"role": "user", "content": "hi"}]}"#).await.status(),
        404
    );
    // The body of this stream is dropped before its end.
    drop(stream(&state).await);
    let whole = stream(&state).await.into_body();
    axum::body::to_bytes(whole, usize::MAX).await.unwrap();
    let text = state.metrics.exposition(&state.models.current());
    for line in [
        r#"tightwad_requests_total{model="",status="400"} 1"#,
        r#"tightwad_requests_total{model="",status="404"} 1"#,
        r#"tightwad_requests_total{model="m",status="499"} 1"#,
        r#"tightwad_requests_total{model="m",status="200"} 1"#,
        "tightwad_requests_in_flight 0",
        // One token of the stream that was dropped, and two of the other one.
        r#"tightwad_tokens_total{model="m",kind="completion"} 3"#,
    ] {
        assert!(text.lines().any(|text_line| text_line == line), "{line} is missing in:\n{text}");
    }
}
