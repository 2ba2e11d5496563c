//! The paths of a worker.

use std::net::SocketAddr;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::{CONNECTION, UPGRADE as UPGRADE_TO};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use hyper_util::rt::TokioIo;
use tightwad_net::http::{ApiError, has_token};
use tightwad_tunnel::UPGRADE;

use crate::worker::facts::WorkerFacts;
use crate::worker::state::WorkerState;

/// Refuses requests without the token, where there is one.
pub(crate) async fn require_token(
    State(state): State<WorkerState>,
    request: Request,
    next: Next,
) -> Response {
    if state.token.as_ref().is_none_or(|token| has_token(&request, token)) {
        return next.run(request).await;
    }
    ApiError::unauthorized().into_response()
}

/// Refuses machines that are not on the list, where there is one.
pub(crate) async fn require_address(
    State(state): State<WorkerState>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    if state.allowed.is_empty() || state.allowed.iter().any(|allowed| allowed.has(from.ip())) {
        return next.run(request).await;
    }
    tracing::warn!(%from, "a machine that is not on the list was refused");
    ApiError::forbidden("this worker does not lend to your address: add it with --allow").into_response()
}

pub(crate) async fn facts(State(state): State<WorkerState>) -> Json<WorkerFacts> {
    Json(state.lender.facts())
}

/// Takes bytes in and forgets them: hosts measure their link with it.
pub(crate) async fn sink(body: Bytes) -> Json<usize> {
    Json(body.len())
}

/// Becomes a tunnel.
pub(crate) async fn rpc(
    State(state): State<WorkerState>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    mut request: Request,
) -> Result<Response, ApiError> {
    if request.headers().get(UPGRADE_TO).is_none_or(|wanted| wanted != UPGRADE) {
        let message = format!("this path wants 'Upgrade: {UPGRADE}': a tunnel of this version of tightwad");
        return Err(ApiError::invalid(None, message));
    }
    let place = state.lender.place().map_err(|error| ApiError::too_many(error.to_string()))?;
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        match upgrade.await {
            Ok(host) => {
                tracing::debug!(host = %from, "a pool uses this machine");
                place.lend(TokioIo::new(host), from).await;
            }
            Err(error) => tracing::warn!(host = %from, %error, "a pool did not come"),
        }
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
    response.headers_mut().insert(UPGRADE_TO, HeaderValue::from_static(UPGRADE));
    Ok(response)
}
