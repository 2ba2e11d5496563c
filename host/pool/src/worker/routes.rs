//! The paths of a worker.

use std::net::SocketAddr;

use axum::Json;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::{CONNECTION, UPGRADE};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use hyper_util::rt::TokioIo;
use tightwad_net::http::{ApiError, has_token};
use tightwad_tunnel::UPGRADE_PROTOCOL;

use crate::worker::info::WorkerInfo;
use crate::worker::state::WorkerState;

/// The maximum size of a bandwidth sample.
pub(crate) const MAX_SAMPLE_BYTES: usize = 64 << 20;

/// Refuses requests without the token, if the worker has one.
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

/// Refuses addresses that are not allowed, if the worker has a list of allowed addresses.
pub(crate) async fn require_address(
    State(state): State<WorkerState>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    if state.allowed.is_empty() || state.allowed.iter().any(|allowed| allowed.contains(from.ip())) {
        return next.run(request).await;
    }
    tracing::warn!(%from, "refused an address that --allow does not list");
    ApiError::forbidden(
        "this worker does not lend to your address: start the worker with --allow and this address",
    )
    .into_response()
}

/// Returns the description of the worker.
pub(crate) async fn info(State(state): State<WorkerState>) -> Json<WorkerInfo> {
    Json(state.service.info())
}

/// Counts and discards bytes. Hosts measure the bandwidth of their link with this path.
pub(crate) async fn sink(body: Body) -> Result<Json<usize>, ApiError> {
    let (mut chunks, mut bytes) = (body.into_data_stream(), 0);
    while let Some(chunk) = chunks.next().await {
        let chunk =
            chunk.map_err(|error| ApiError::invalid(None, format!("the sample broke off: {error}")))?;
        bytes += chunk.len();
        if bytes > MAX_SAMPLE_BYTES {
            return Err(ApiError::too_large(MAX_SAMPLE_BYTES));
        }
    }
    Ok(Json(bytes))
}

/// Upgrades a connection to a tunnel.
pub(crate) async fn rpc(
    State(state): State<WorkerState>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    mut request: Request,
) -> Result<Response, ApiError> {
    if request.headers().get(UPGRADE).is_none_or(|protocol| protocol != UPGRADE_PROTOCOL) {
        let message =
            format!("this path needs 'Upgrade: {UPGRADE_PROTOCOL}': connect with this version of tightwad");
        return Err(ApiError::invalid(None, message));
    }
    let slot =
        state.service.reserve_tunnel().map_err(|error| ApiError::too_many_requests(error.to_string()))?;
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        match upgrade.await {
            Ok(host) => {
                tracing::debug!(host = %from, "a pool opened a tunnel");
                slot.serve(TokioIo::new(host), from).await;
            }
            Err(error) => tracing::warn!(host = %from, %error, "the upgrade to a tunnel failed"),
        }
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
    response.headers_mut().insert(UPGRADE, HeaderValue::from_static(UPGRADE_PROTOCOL));
    Ok(response)
}
