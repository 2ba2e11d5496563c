//! Bearer tokens in requests.

use axum::extract::Request;
use axum::http::header::AUTHORIZATION;
use tightwad_core::Token;

/// True when `request` carries the bearer token `expected`.
pub fn has_token(request: &Request, expected: &Token) -> bool {
    expected.admits(request.headers().get(AUTHORIZATION).map(|value| value.as_bytes()))
}
