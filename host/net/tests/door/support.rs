//! A server behind a door, and a client that writes bytes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::response::Response;
use axum::routing::{get, post};
use futures_util::{StreamExt, stream};
use tightwad_net::door::{ConnectionLimits, DoorConfig, Ended, Shutdown, WebNames, serve};
use tightwad_net::http::ApiError;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// A test fails when a step takes longer. A slow machine needs a small part of it.
pub(crate) const STEP_TIMEOUT: Duration = Duration::from_secs(20);

/// What a test observes of the handlers.
#[derive(Clone, Default)]
pub(crate) struct Probe {
    /// The handler of `/wait` or `/endless` has begun.
    pub begun: Arc<Notify>,
    /// The handler of `/wait`, or the body of `/endless`, was dropped.
    pub dropped: Arc<Notify>,
    /// Lets the handler of `/wait` reply.
    pub release: Arc<Notify>,
}

struct OnDrop(Arc<Notify>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

pub(crate) struct Server {
    pub address: SocketAddr,
    pub probe: Probe,
    /// Starts the shutdown.
    pub signal: Arc<Notify>,
    pub task: JoinHandle<std::io::Result<Ended>>,
}

/// Limits that no test reaches.
pub(crate) fn long_limits() -> ConnectionLimits {
    let hour = Duration::from_secs(3600);
    ConnectionLimits {
        header_timeout: hour,
        idle_timeout: hour,
        body_timeout: hour,
        body_idle_timeout: hour,
        write_timeout: hour,
        drain_header_timeout: hour,
        ..ConnectionLimits::default()
    }
}

fn routes(probe: Probe) -> Router {
    let (endless, events) = (probe.clone(), probe.clone());
    Router::new()
        .route("/health", get(async || "ok"))
        .route("/v1/models", get(async || "models"))
        .route(
            "/echo",
            post(async |body: Result<Bytes, axum::extract::rejection::BytesRejection>| {
                body.map_err(|rejection| match rejection.status().as_u16() {
                    413 => ApiError::too_large(1 << 20),
                    _ => ApiError::invalid(None, rejection.body_text()),
                })
            }),
        )
        .route("/binary", post(async |body: Bytes| body))
        .route("/empty", post(async || "done"))
        .route(
            "/panic",
            get(async || {
                if true {
                    panic!("a defect")
                }
            }),
        )
        .route(
            "/wait",
            get(async move || {
                let _guard = OnDrop(probe.dropped.clone());
                probe.begun.notify_one();
                probe.release.notified().await;
                "released"
            }),
        )
        .route(
            "/endless",
            get(async move || {
                let guard = OnDrop(endless.dropped.clone());
                endless.begun.notify_one();
                let chunks = stream::unfold(guard, async |guard| {
                    Some((Ok::<_, std::io::Error>(Bytes::from(vec![b'x'; 64 << 10])), guard))
                });
                Response::new(Body::from_stream(chunks))
            }),
        )
        .route(
            "/events",
            get(async move || {
                let guard = OnDrop(events.dropped.clone());
                events.begun.notify_one();
                let release = events.release.clone();
                let first =
                    stream::once(async { Ok::<_, std::io::Error>(Bytes::from_static(b"data: 1\n\n")) });
                let second = stream::once(async move {
                    let _guard = guard;
                    release.notified().await;
                    Ok(Bytes::from_static(b"data: 2\n\n"))
                });
                ([("content-type", "text/event-stream")], Body::from_stream(first.chain(second)))
            }),
        )
        .fallback(async |uri: axum::http::Uri| ApiError::unknown_path(&uri, &["/v1/models", "/echo"]))
}

impl Server {
    pub(crate) async fn start(limits: ConnectionLimits) -> Self {
        Self::with(limits, false, Duration::from_secs(3600)).await
    }

    pub(crate) async fn with(limits: ConnectionLimits, has_token: bool, drain_timeout: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, probe, signal) =
            (listener.local_addr().unwrap(), Probe::default(), Arc::new(Notify::new()));
        let names = WebNames::new(&["box.lan".to_owned()], &["http://localhost:5173".to_owned()]).unwrap();
        let config = DoorConfig {
            limits,
            max_body_bytes: 1 << 20,
            binary_paths: &["/binary"],
            web: Arc::new(names),
            ..DoorConfig::new(move || has_token)
        };
        let started = signal.clone();
        let shutdown = Shutdown::after(async move { started.notified().await }, drain_timeout);
        let task = tokio::spawn(serve(listener, routes(probe.clone()), config, shutdown));
        Self { address, probe, signal, task }
    }

    pub(crate) async fn connect(&self) -> Connection {
        Connection(TcpStream::connect(self.address).await.unwrap())
    }

    /// Sends `request` on a new connection and returns the response.
    pub(crate) async fn ask(&self, request: &str) -> String {
        self.ask_bytes(request.as_bytes()).await
    }

    pub(crate) async fn ask_bytes(&self, request: &[u8]) -> String {
        let mut connection = self.connect().await;
        connection.send_bytes(request).await;
        connection.response().await
    }

    pub(crate) async fn get(&self, path: &str) -> String {
        self.ask(&get_request(path)).await
    }
}

pub(crate) fn get_request(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

/// A request with a body. `headers` end in a line break each.
pub(crate) fn post_request(path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head =
        format!("POST {path} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

pub(crate) struct Connection(pub TcpStream);

impl Connection {
    pub(crate) async fn send(&mut self, text: &str) {
        self.send_bytes(text.as_bytes()).await;
    }

    pub(crate) async fn send_bytes(&mut self, bytes: &[u8]) {
        // The server may refuse the request before it has read all of it.
        let _ = self.0.write_all(bytes).await;
    }

    /// The next response: its header and the body of its `Content-Length`. Interim responses stay in the text.
    pub(crate) async fn response(&mut self) -> String {
        let mut text = Vec::new();
        let read = async {
            while !is_complete(&text) {
                match self.0.read_u8().await {
                    Ok(byte) => text.push(byte),
                    Err(_) => break,
                }
            }
        };
        timeout(STEP_TIMEOUT, read).await.expect("no response");
        String::from_utf8(text).unwrap()
    }

    /// Waits until the server closes the connection.
    pub(crate) async fn closed(&mut self) {
        let mut rest = Vec::new();
        let _ =
            timeout(STEP_TIMEOUT, self.0.read_to_end(&mut rest)).await.expect("the connection stays open");
        assert!(rest.is_empty(), "{}", String::from_utf8_lossy(&rest));
    }
}

fn is_complete(text: &[u8]) -> bool {
    let text = String::from_utf8_lossy(text);
    let text = text.rsplit_once("100 Continue\r\n\r\n").map_or(&*text, |(_, last)| last);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.to_ascii_lowercase();
    let length = length.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    body.len() >= length.unwrap_or(0)
}

/// Waits for `event`.
pub(crate) async fn observe(event: &Notify) {
    timeout(STEP_TIMEOUT, event.notified()).await.expect("the event did not happen");
}

/// The status of a response.
pub(crate) fn status(response: &str) -> u16 {
    response.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default()
}
