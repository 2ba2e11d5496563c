//! A text server for tests: it lists one model, counts requests, and answers as it is told.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::client::Client;
use crate::dialect::Dialect;
use crate::spec::{TextServerSpec, Verification};

/// A server on 127.0.0.1. It ends when this is dropped.
pub(crate) struct FakeServer {
    pub(crate) url: String,
    asked: Arc<Mutex<Vec<(String, Value)>>>,
    task: JoinHandle<()>,
}

impl Drop for FakeServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl FakeServer {
    /// Serves on a free port.
    pub(crate) async fn start(answer: impl Fn() -> Response + Clone + Send + Sync + 'static) -> Self {
        Self::start_on(TcpListener::bind("127.0.0.1:0").await.unwrap(), answer)
    }

    /// Serves on `listener`. Every connection serves one request.
    pub(crate) fn start_on(
        listener: TcpListener,
        answer: impl Fn() -> Response + Clone + Send + Sync + 'static,
    ) -> Self {
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::<Mutex<Vec<(String, Value)>>>::default();
        let own = asked.clone();
        let service = Router::new().fallback(async move |request: Request| {
            let path = request.uri().path().to_owned();
            let mut response = match path.as_str() {
                "/v1/models" | "/api/tags" => {
                    let list = json!({"data": [{"id": "m"}], "models": [{"name": "m"}]});
                    list.to_string().into_response()
                }
                _ => {
                    let body = axum::body::to_bytes(request.into_body(), 1 << 20).await.unwrap();
                    let body = serde_json::from_slice(&body).unwrap();
                    own.lock().unwrap().push((path, body));
                    answer()
                }
            };
            response.headers_mut().insert("connection", "close".parse().unwrap());
            response
        });
        let task = tokio::spawn(async move { axum::serve(listener, service).await.unwrap() });
        Self { url, asked, task }
    }

    /// A client of this server.
    pub(crate) async fn client(&self, dialect: Dialect) -> Client {
        Client::connect(&self.spec(dialect)).await.unwrap()
    }

    /// A spec of this server.
    pub(crate) fn spec(&self, dialect: Dialect) -> TextServerSpec {
        let (url, verify) = (self.url.clone(), Verification::None);
        TextServerSpec { dialect, url, model: None, token: None, name: None, verify }
    }

    /// Path and body of the requests so far, without those for the list of models.
    pub(crate) fn asked(&self) -> Vec<(String, Value)> {
        self.asked.lock().unwrap().clone()
    }
}

/// A body that comes in these parts, each in a chunk of its own. `broken`: the connection breaks after them.
pub(crate) fn stream_of(parts: &[&[u8]], broken: bool) -> Response {
    let parts = parts.iter().filter(|part| !part.is_empty()).map(|part| Ok(Bytes::copy_from_slice(part)));
    let sent = stream::iter(parts.collect::<Vec<_>>());
    if !broken {
        return Body::from_stream(sent).into_response();
    }
    let end = stream::once(async {
        // The server sends the parts before it sees the error.
        tokio::task::yield_now().await;
        Err(std::io::Error::other("the connection breaks"))
    });
    Body::from_stream(sent.chain(end)).into_response()
}
