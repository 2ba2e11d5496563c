//! Clients that stop reading, send too much, or call too often.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::body::Bytes;
use axum::extract::{ConnectInfo, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use serde_json::{Value, json};
use tightwad_core::SharedBackend;
use tightwad_net::machine_client;
use tokio::net::TcpListener;

use crate::protocol::hash::TokenHash;
use crate::server::registry::SessionLimits;
use crate::server::routes::routes;
use crate::server::service::NodeService;
use crate::server::{decode, open, sessions, tokens};
use crate::testing::{FakeModel, PassTime, PassTimer};

/// Passes that never end.
struct EndlessPasses;

#[async_trait]
impl PassTimer for EndlessPasses {
    async fn pass(&self, _rows: usize) -> PassTime {
        std::future::pending().await
    }
}

const SHORT_STALL: SessionLimits = SessionLimits {
    per_client: 4,
    total: 8,
    idle_timeout: Duration::from_secs(120),
    stall_timeout: Duration::from_millis(20),
};

fn node(model: FakeModel, limits: SessionLimits) -> NodeService {
    NodeService::new([("model".to_owned(), Arc::new(model) as SharedBackend)], limits)
}

fn body(call: &Value) -> Result<Bytes, axum::extract::rejection::BytesRejection> {
    Ok(call.to_string().into())
}

async fn json_of(response: Response) -> Value {
    serde_json::from_slice(&axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap()).unwrap()
}

/// Opens a session on the prompt `hi`. Returns its id.
async fn open(service: &NodeService, role: &str) -> String {
    let call = json!({"model": "model", "role": role,
        "request": {"id": "1", "prompt": {"text": "hi"}, "max_tokens": 1_000_000}});
    let client = ConnectInfo(SocketAddr::from(([127, 0, 0, 1], 1)));
    let opened = open::open(State(service.clone()), client, body(&call)).await.unwrap();
    json_of(opened).await["session"].as_str().unwrap().to_owned()
}

/// The position after the prompt.
fn position() -> Value {
    json!({"at": 2, "hash": TokenHash::new(&[104, 105])})
}

fn with(mut call: Value, key: &str, value: Value) -> Value {
    call[key] = value;
    call
}

async fn decode(service: &NodeService, id: &str) -> Response {
    let call = with(position(), "max_tokens", json!(1_000_000));
    decode::decode(State(service.clone()), Path(id.to_owned()), body(&call)).await.unwrap()
}

async fn wait_until_closed(service: &NodeService) {
    let closed = async {
        while service.sessions() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), closed).await.unwrap();
}

#[tokio::test]
async fn reader_that_stalls_loses_its_session() {
    let service = node(FakeModel::new(), SHORT_STALL);
    let id = open(&service, "target").await;
    let response = decode(&service, &id).await;
    wait_until_closed(&service).await;
    // The stream ends after the buffered steps.
    assert!(response.into_body().into_data_stream().count().await <= 66);
}

#[tokio::test]
async fn dropped_body_frees_the_session() {
    let no_stall = SessionLimits { stall_timeout: Duration::from_secs(3600), ..SHORT_STALL };
    for model in [FakeModel::new(), FakeModel::with_timer(Arc::new(EndlessPasses))] {
        let service = node(model, no_stall);
        let id = open(&service, "target").await;
        drop(decode(&service, &id).await);
        wait_until_closed(&service).await;
    }
}

#[tokio::test(start_paused = true)]
async fn idle_stream_has_empty_lines() {
    let service = node(FakeModel::with_timer(Arc::new(EndlessPasses)), SHORT_STALL);
    let id = open(&service, "target").await;
    let response = decode(&service, &id).await;
    assert_eq!(response.headers()["x-accel-buffering"], "no");
    let mut lines = response.into_body().into_data_stream();
    for _ in 0..3 {
        assert_eq!(lines.next().await.unwrap().unwrap(), "\n");
    }
    assert_eq!(service.sessions(), 1);
}

#[tokio::test]
async fn tokens_beyond_the_context_are_refused() {
    let service = node(FakeModel::new().with_context(100), SHORT_STALL);
    let (target, drafter) = (open(&service, "target").await, open(&service, "drafter").await);
    let long = json!(vec![1; 99]);
    let propose = with(with(position(), "tokens", long), "max_tokens", json!(4));
    let proposed = sessions::propose(State(service.clone()), Path(drafter), body(&propose)).await;
    let verify = with(position(), "unverified", json!(vec![1; 101]));
    let verified = sessions::verify(State(service.clone()), Path(target), body(&verify)).await;
    let open = json!({"model": "model", "role": "target", "tokens": vec![1; 60], "output": vec![1; 41],
        "request": {"id": "1", "prompt": {"text": ""}}});
    let client = ConnectInfo(SocketAddr::from(([127, 0, 0, 1], 1)));
    let opened = open::open(State(service.clone()), client, body(&open)).await;
    for error in [proposed.err(), verified.err(), opened.err()] {
        let error = error.unwrap();
        assert_eq!(error.status(), StatusCode::BAD_REQUEST);
        let error = error.object();
        assert_eq!(error["error"]["code"], "context_length_exceeded");
        let message = "the call has 101 tokens, and the context of this model has 100";
        assert_eq!(error["error"]["message"], message);
    }
}

#[tokio::test]
async fn huge_lists_are_refused() {
    let service = node(FakeModel::new(), SHORT_STALL);
    let call = json!({"model": "model", "tokens": vec![1; (1 << 18) + 1]});
    let error = tokens::detokenize(State(service.clone()), body(&call)).await.unwrap_err();
    assert_eq!(error.status(), StatusCode::BAD_REQUEST);
    let score = json!({"model": "model", "request": {"id": "1", "prompt": {"text": ""}}, "answer": "x", "from": 5, "to": 2});
    let error = tokens::score(State(service), body(&score)).await.unwrap_err();
    assert_eq!(error.status(), StatusCode::BAD_REQUEST);
}

/// A node on a port. Returns its URL.
async fn serve(service: NodeService) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1/node/sessions", listener.local_addr().unwrap());
    let service = routes(service).into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, service).await });
    url
}

#[tokio::test]
async fn client_has_a_maximum_of_calls_and_can_end_them() {
    let limits = SessionLimits { per_client: 1, ..SHORT_STALL };
    let service = node(FakeModel::with_timer(Arc::new(EndlessPasses)), limits);
    let id = open(&service, "target").await;
    let url = serve(service.clone()).await;
    let client = machine_client().build().unwrap();
    let send = || {
        let request = client.post(format!("{url}/{id}/verify")).body(position().to_string());
        tokio::spawn(async move { request.send().await.unwrap().status() })
    };
    let calls = [send(), send()];
    while service.calls.total() < 2 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(send().await.unwrap(), StatusCode::TOO_MANY_REQUESTS);
    // Closing the session ends the running call and the waiting one.
    let closed = client.delete(format!("{url}/{id}")).send().await.unwrap();
    assert_eq!(closed.status(), StatusCode::NO_CONTENT);
    for call in calls {
        assert_eq!(call.await.unwrap(), StatusCode::CONFLICT);
    }
    assert_eq!((service.calls.total(), service.sessions()), (0, 0));
}

#[tokio::test]
async fn repeated_calls_do_not_pile_up() {
    let service = node(FakeModel::with_timer(Arc::new(EndlessPasses)), SHORT_STALL);
    let id = open(&service, "target").await;
    let verify = || {
        let (service, id) = (service.clone(), id.clone());
        tokio::spawn(async move { sessions::verify(State(service), Path(id), body(&position())).await })
    };
    let (_running, _waiting) = (verify(), verify());
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    let error = verify().await.unwrap().unwrap_err().into_response();
    assert_eq!(error.status(), StatusCode::CONFLICT);
}
