//! Refuses requests that the seeder's access rules do not admit.

use axum::extract::{Request, State};
use axum::http::header::AUTHORIZATION;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::net::seed::access::address_of;
use crate::net::seed::refusal::Refusal;
use crate::net::seed::state::SeedState;

/// Refuses requests without the token, where there is one.
pub(crate) async fn require_token(State(state): State<SeedState>, request: Request, next: Next) -> Response {
    let shown = request.headers().get(AUTHORIZATION).map(|value| value.as_bytes());
    if state.access.admits_token(shown) { next.run(request).await } else { Refusal::Token.into_response() }
}

/// Refuses requests from addresses that are not allowed, before anything else is looked at.
pub(crate) async fn require_address(
    State(state): State<SeedState>,
    request: Request,
    next: Next,
) -> Response {
    if state.access.admits_address(address_of(&request)) {
        next.run(request).await
    } else {
        Refusal::Address.into_response()
    }
}
