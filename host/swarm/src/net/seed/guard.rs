//! Middleware: refuses requests that the seeder's access rules do not admit.

use axum::extract::{Request, State};
use axum::http::header::AUTHORIZATION;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::net::seed::access::address_of;
use crate::net::seed::refusal::Refusal;
use crate::net::seed::state::SeedState;

/// Refuses requests without the seeder's token.
pub(crate) async fn require_token(State(state): State<SeedState>, request: Request, next: Next) -> Response {
    let header = request.headers().get(AUTHORIZATION).map(|value| value.as_bytes());
    if state.access.admits_token(header) {
        next.run(request).await
    } else {
        Refusal::WrongToken.into_response()
    }
}

/// Refuses requests from addresses that are not allowed. Runs before all other checks.
pub(crate) async fn require_address(
    State(state): State<SeedState>,
    request: Request,
    next: Next,
) -> Response {
    if state.access.admits_address(address_of(&request)) {
        next.run(request).await
    } else {
        Refusal::AddressNotAllowed.into_response()
    }
}
