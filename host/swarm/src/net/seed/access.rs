//! Who is served: a token, and addresses.

use std::net::{IpAddr, SocketAddr};

use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::AUTHORIZATION;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tightwad_core::Token;

use crate::net::seed::SeedState;
use crate::net::seed::refusal::Refusal;

type Allows = dyn Fn(IpAddr) -> bool + Send + Sync;

/// Who is served; by default everybody.
#[derive(Default)]
pub(crate) struct Access {
    token: Option<Token>,
    allows: Option<Box<Allows>>,
}

impl Access {
    pub(crate) fn new(token: Option<Token>, allows: impl Fn(IpAddr) -> bool + Send + Sync + 'static) -> Self {
        Self { token, allows: Some(Box::new(allows)) }
    }
}

/// Where a question comes from, when the server was made to know.
pub(crate) fn address_of(request: &Request) -> Option<IpAddr> {
    request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip().to_canonical())
}

/// Refuses requests without the token, where there is one.
pub(crate) async fn require_token(State(state): State<SeedState>, request: Request, next: Next) -> Response {
    let Some(expected) = &state.access.token else { return next.run(request).await };
    if expected.admits(request.headers().get(AUTHORIZATION).map(|value| value.as_bytes())) {
        next.run(request).await
    } else {
        Refusal::Token.into_response()
    }
}

/// Refuses requests from addresses that are not allowed, before anything else is looked at.
pub(crate) async fn require_address(
    State(state): State<SeedState>,
    request: Request,
    next: Next,
) -> Response {
    let Some(allows) = &state.access.allows else { return next.run(request).await };
    // An unspecified address is in no list, but in a list of everything.
    let address = address_of(&request).unwrap_or(IpAddr::from([0, 0, 0, 0]));
    if allows(address) { next.run(request).await } else { Refusal::Address.into_response() }
}
