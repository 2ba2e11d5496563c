//! Checks the bearer token.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tightwad_net::http::{ApiError, has_token};

use crate::state::ServerState;

/// Refuses requests without the server's token, if it has one.
pub(crate) async fn require_token(
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
