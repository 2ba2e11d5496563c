//! A text server for tests. The server lists one model, records its requests, and replies as a test
//! specifies.

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
use crate::spec::{DEFAULT_FIRST_TOKEN_TIMEOUT, TextServerSpec, Verification};

/// A server on 127.0.0.1. Dropping it stops the server.
pub(crate) struct FakeServer {
    pub(crate) url: String,
    requests: Arc<Mutex<Vec<(String, Value)>>>,
    task: JoinHandle<()>,
}

impl Drop for FakeServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl FakeServer {
    /// Starts a server on a free port.
    pub(crate) async fn start(reply: impl Fn() -> Response + Clone + Send + Sync + 'static) -> Self {
        Self::start_on(TcpListener::bind("127.0.0.1:0").await.unwrap(), reply)
    }

    /// Starts a server on `listener`. Every connection serves one request.
    pub(crate) fn start_on(
        listener: TcpListener,
        reply: impl Fn() -> Response + Clone + Send + Sync + 'static,
    ) -> Self {
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::<Mutex<Vec<(String, Value)>>>::default();
        let recorded = requests.clone();
        let service = Router::new().fallback(async move |request: Request| {
            let path = request.uri().path().to_owned();
            let mut response = match path.as_str() {
                "/v1/models" | "/v1beta/openai/models" | "/api/tags" => {
                    let list = json!({"data": [{"id": "m"}], "models": [{"name": "m"}]});
                    list.to_string().into_response()
                }
                _ => {
                    let body = axum::body::to_bytes(request.into_body(), 1 << 20).await.unwrap();
                    let body = serde_json::from_slice(&body).unwrap();
                    recorded.lock().unwrap().push((path, body));
                    reply()
                }
            };
            response.headers_mut().insert("connection", "close".parse().unwrap());
            response
        });
        let task = tokio::spawn(async move { axum::serve(listener, service).await.unwrap() });
        Self { url, requests, task }
    }

    /// A client of this server.
    pub(crate) async fn client(&self, dialect: Dialect) -> Client {
        Client::connect(&self.spec(dialect)).await.unwrap()
    }

    /// A spec of this server.
    pub(crate) fn spec(&self, dialect: Dialect) -> TextServerSpec {
        let (url, verify) = (self.url.clone(), Verification::None);
        let first_token_timeout = DEFAULT_FIRST_TOKEN_TIMEOUT;
        TextServerSpec { dialect, url, model: None, api_key: None, name: None, verify, first_token_timeout }
    }

    /// Path and body of the requests so far, without requests for the list of models.
    pub(crate) fn requests(&self) -> Vec<(String, Value)> {
        self.requests.lock().unwrap().clone()
    }
}

/// A response body in these parts, one chunk per part. With `broken`, the connection breaks after the parts.
pub(crate) fn streamed_response(parts: &[&[u8]], broken: bool) -> Response {
    let parts = parts.iter().filter(|part| !part.is_empty()).map(|part| Ok(Bytes::copy_from_slice(part)));
    let parts = stream::iter(parts.collect::<Vec<_>>());
    if !broken {
        return Body::from_stream(parts).into_response();
    }
    let end = stream::once(async {
        // The server must send the parts before it sees the error.
        tokio::task::yield_now().await;
        Err(std::io::Error::other("the connection breaks"))
    });
    Body::from_stream(parts.chain(end)).into_response()
}
