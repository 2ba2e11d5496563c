//! The bearer token.

use axum::extract::{Request, State};
use axum::http::header::AUTHORIZATION;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tightwad_net::Token;

use super::ServerState;
use super::error::ApiError;

/// Refuses requests without the token, where there is one.
pub(super) async fn require_token(
    State(state): State<ServerState>,
    request: Request,
    next: Next,
) -> Response {
    let Some(expected) = state.token.current() else { return next.run(request).await };
    if has_token(&request, &expected) {
        next.run(request).await
    } else {
        ApiError::unauthorized().into_response()
    }
}

/// True when `request` brings the token `expected`.
pub(super) fn has_token(request: &Request, expected: &Token) -> bool {
    expected.admits(request.headers().get(AUTHORIZATION).map(|value| value.as_bytes()))
}
