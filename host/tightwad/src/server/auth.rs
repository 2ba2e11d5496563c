//! The bearer token.

use axum::extract::{Request, State};
use axum::http::header::AUTHORIZATION;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use subtle::ConstantTimeEq;

use super::ServerState;
use super::error::ApiError;

/// Refuses requests without the token, where there is one.
pub(super) async fn require_token(
    State(state): State<ServerState>,
    request: Request,
    next: Next,
) -> Response {
    let Some(expected) = &state.token else { return next.run(request).await };
    if has_token(&request, expected) {
        next.run(request).await
    } else {
        ApiError::unauthorized().into_response()
    }
}

/// True when `request` brings the token `expected`.
pub(super) fn has_token(request: &Request, expected: &str) -> bool {
    let given = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let given = given.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
    // How long the comparison takes says nothing about the token.
    bool::from(given.as_bytes().ct_eq(expected.as_bytes()))
}
