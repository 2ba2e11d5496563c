//! A node on loopback with injected faults.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use serde_json::Value;
use tightwad_core::{Clock, SharedBackend, Token};
use tightwad_net::http::{ApiError, has_token};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::client::model::{Node, NodeSpec};
use crate::server::registry::SessionLimits;
use crate::server::routes::routes;
use crate::server::service::NodeService;

/// A fault of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The node replies, and the connection breaks before the reply arrives.
    LoseReply,
    /// The connection breaks after the first line of the reply.
    CutReply,
    /// The network changes a byte of the reply.
    ChangeReply,
    /// The network changes a byte of the call.
    ChangeCall,
    /// The session of the call has expired.
    ExpireSession,
}

/// A received call.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// The last part of the path, such as `verify`.
    pub name: String,
    pub body: Value,
}

#[derive(Clone)]
struct Network {
    service: NodeService,
    token: Option<Token>,
    faults: Arc<Mutex<VecDeque<(&'static str, Fault)>>>,
    calls: Arc<Mutex<Vec<Call>>>,
}

/// A running node. Dropping it stops the server.
pub(crate) struct FakeNode {
    network: Network,
    url: String,
    _serving: JoinSet<()>,
}

impl FakeNode {
    /// A node that lends `models` by name, guarded by `token`.
    pub(crate) async fn with_models<const N: usize>(
        models: [(&str, SharedBackend); N],
        token: Option<Token>,
        clock: Clock,
    ) -> Self {
        let models = models.map(|(name, model)| (name.to_owned(), model));
        let service = NodeService::new(models, SessionLimits::default()).with_clock(clock);
        let network =
            Network { service: service.clone(), token, faults: Arc::default(), calls: Arc::default() };
        let paths = routes(service).layer(from_fn_with_state(network.clone(), inject_faults));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let service = paths.into_make_service_with_connect_info::<SocketAddr>();
            axum::serve(listener, service).await.unwrap();
        });
        Self { network, url, _serving: serving }
    }

    /// A node that lends `model` without a token.
    pub(crate) async fn new(model: SharedBackend) -> Self {
        Self::with_models([("model", model)], None, Clock::default()).await
    }

    /// A spec of this node.
    pub(crate) fn spec(&self) -> NodeSpec {
        let wait_timeout = Duration::from_secs(5);
        NodeSpec {
            url: self.url.clone(),
            model: None,
            token: None,
            name: None,
            wait_timeout,
            supervised_device: None,
        }
    }

    pub(crate) async fn connect(&self) -> Node {
        Node::connect(&self.spec()).await.unwrap()
    }

    /// Injects a fault into the next call of this name.
    pub(crate) fn inject(&self, name: &'static str, fault: Fault) {
        self.network.faults.lock().unwrap().push_back((name, fault));
    }

    /// The calls of this name so far.
    pub(crate) fn calls(&self, name: &str) -> Vec<Call> {
        let calls = self.network.calls.lock().unwrap();
        calls.iter().filter(|call| call.name == name).cloned().collect()
    }

    /// Number of open sessions.
    pub(crate) fn sessions(&self) -> usize {
        self.network.service.sessions()
    }
}

impl Network {
    /// The fault of the next call, if one was injected.
    fn fault(&self, name: &str) -> Option<Fault> {
        let mut faults = self.faults.lock().unwrap();
        faults.pop_front_if(|(next, _)| *next == name).map(|(_, fault)| fault)
    }
}

async fn inject_faults(
    State(network): State<Network>,
    request: Request,
    next: Next,
) -> Result<Response, Infallible> {
    if network.token.as_ref().is_some_and(|token| !has_token(&request, token)) {
        return Ok(ApiError::unauthorized().into_response());
    }
    let path = request.uri().path().to_owned();
    let mut parts = path.rsplit('/');
    let (name, session) = (parts.next().unwrap().to_owned(), parts.next().unwrap().to_owned());
    let fault = network.fault(&name);
    let (head, body) = request.into_parts();
    let mut body = to_bytes(body, usize::MAX).await.unwrap().to_vec();
    network
        .calls
        .lock()
        .unwrap()
        .push(Call { name, body: serde_json::from_slice(&body).unwrap_or_default() });
    match fault {
        Some(Fault::ChangeCall) => change_digit(&mut body),
        Some(Fault::ExpireSession) => network.service.registry.remove(&session),
        _ => {}
    }
    let response = next.run(Request::from_parts(head, body.into())).await;
    Ok(match fault {
        Some(Fault::LoseReply) => cut_response(response, 0),
        Some(Fault::CutReply) => cut_response(response, 1),
        Some(Fault::ChangeReply) => {
            let (head, body) = response.into_parts();
            let mut body = to_bytes(body, usize::MAX).await.unwrap().to_vec();
            change_digit(&mut body);
            Response::from_parts(head, body.into())
        }
        _ => response,
    })
}

/// Changes a digit, so that the JSON stays valid.
fn change_digit(body: &mut [u8]) {
    let digit = body.iter().position(u8::is_ascii_digit).unwrap();
    body[digit] = if body[digit] == b'1' { b'2' } else { b'1' };
}

/// The response, cut after `pieces` chunks of the body.
fn cut_response(response: Response, pieces: usize) -> Response {
    let (mut head, body) = response.into_parts();
    head.headers.remove("content-length");
    let passed = body.into_data_stream().take(pieces);
    let broken = stream::once(async {
        // The earlier chunks must be sent first.
        tokio::task::yield_now().await;
        Err(axum::Error::new(io::Error::other("the connection breaks")))
    });
    Response::from_parts(head, Body::from_stream(passed.chain(broken)))
}
