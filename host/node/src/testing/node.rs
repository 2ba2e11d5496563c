//! A node on loopback. Accidents happen to its calls by order.

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
use crate::server::lent::Lent;
use crate::server::registry::SessionLimits;
use crate::server::routes::routes;

/// What happens to one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accident {
    /// The node answers, and the connection breaks before the answer arrives.
    LoseAnswer,
    /// The connection breaks after the first line of the answer.
    CutAnswer,
    /// A byte of the answer changes on the way.
    ChangeAnswer,
    /// A byte of the call changes on the way.
    ChangeCall,
    /// The session of the call has expired.
    Expire,
}

/// A call that arrived.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// The last part of its path: `verify`.
    pub name: String,
    pub body: Value,
}

#[derive(Clone)]
struct Way {
    lent: Lent,
    token: Option<Token>,
    accidents: Arc<Mutex<VecDeque<(&'static str, Accident)>>>,
    calls: Arc<Mutex<Vec<Call>>>,
}

/// A node; it ends when this is dropped.
pub(crate) struct FakeNode {
    way: Way,
    url: String,
    _serving: JoinSet<()>,
}

impl FakeNode {
    /// Lends `models`, by names, to all who have the token.
    pub(crate) async fn lending<const N: usize>(
        models: [(&str, SharedBackend); N],
        token: Option<Token>,
        clock: Clock,
    ) -> Self {
        let models = models.map(|(name, model)| (name.to_owned(), model));
        let lent = Lent::new(models, SessionLimits::default()).timed_by(clock);
        let way = Way { lent: lent.clone(), token, accidents: Arc::default(), calls: Arc::default() };
        let paths = routes(lent).layer(from_fn_with_state(way.clone(), travel));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let service = paths.into_make_service_with_connect_info::<SocketAddr>();
            axum::serve(listener, service).await.unwrap();
        });
        Self { way, url, _serving: serving }
    }

    /// Lends `model` to everyone.
    pub(crate) async fn of(model: SharedBackend) -> Self {
        Self::lending([("model", model)], None, Clock::default()).await
    }

    /// How it is reached.
    pub(crate) fn spec(&self) -> NodeSpec {
        let patience = Duration::from_secs(5);
        NodeSpec { url: self.url.clone(), model: None, token: None, name: None, patience, watched: None }
    }

    pub(crate) async fn connect(&self) -> Node {
        Node::connect(&self.spec()).await.unwrap()
    }

    /// Lets `accident` happen to the next call of this name.
    pub(crate) fn order(&self, name: &'static str, accident: Accident) {
        self.way.accidents.lock().unwrap().push_back((name, accident));
    }

    /// The calls of this name so far.
    pub(crate) fn calls(&self, name: &str) -> Vec<Call> {
        let calls = self.way.calls.lock().unwrap();
        calls.iter().filter(|call| call.name == name).cloned().collect()
    }

    /// Sessions that are open.
    pub(crate) fn sessions(&self) -> usize {
        self.way.lent.sessions()
    }
}

impl Way {
    /// The accident that is due to a call of this name.
    fn accident(&self, name: &str) -> Option<Accident> {
        let mut accidents = self.accidents.lock().unwrap();
        accidents.pop_front_if(|(next, _)| *next == name).map(|(_, accident)| accident)
    }
}

async fn travel(State(way): State<Way>, request: Request, next: Next) -> Result<Response, Infallible> {
    if way.token.as_ref().is_some_and(|token| !has_token(&request, token)) {
        return Ok(ApiError::unauthorized().into_response());
    }
    let path = request.uri().path().to_owned();
    let mut parts = path.rsplit('/');
    let (name, session) = (parts.next().unwrap().to_owned(), parts.next().unwrap().to_owned());
    let accident = way.accident(&name);
    let (head, body) = request.into_parts();
    let mut body = to_bytes(body, usize::MAX).await.unwrap().to_vec();
    way.calls.lock().unwrap().push(Call { name, body: serde_json::from_slice(&body).unwrap_or_default() });
    match accident {
        Some(Accident::ChangeCall) => change(&mut body),
        Some(Accident::Expire) => way.lent.registry.remove(&session),
        _ => {}
    }
    let response = next.run(Request::from_parts(head, body.into())).await;
    Ok(match accident {
        Some(Accident::LoseAnswer) => cut(response, 0),
        Some(Accident::CutAnswer) => cut(response, 1),
        Some(Accident::ChangeAnswer) => {
            let (head, body) = response.into_parts();
            let mut body = to_bytes(body, usize::MAX).await.unwrap().to_vec();
            change(&mut body);
            Response::from_parts(head, body.into())
        }
        _ => response,
    })
}

/// Changes a digit, so that the JSON can still be read.
fn change(body: &mut [u8]) {
    let digit = body.iter().position(u8::is_ascii_digit).unwrap();
    body[digit] = if body[digit] == b'1' { b'2' } else { b'1' };
}

/// The response, whose connection breaks after `pieces` pieces of the body.
fn cut(response: Response, pieces: usize) -> Response {
    let (mut head, body) = response.into_parts();
    head.headers.remove("content-length");
    let kept = body.into_data_stream().take(pieces);
    let broken = stream::once(async {
        // The pieces before must leave first.
        tokio::task::yield_now().await;
        Err(axum::Error::new(io::Error::other("the connection breaks")))
    });
    Response::from_parts(head, Body::from_stream(kept.chain(broken)))
}
