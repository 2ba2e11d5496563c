//! What a worker offers to hosts: llama.cpp's RPC behind a token, and what it lends.
//! `host/PROTOCOL.md` explains every field.

use std::future::Future;
use std::net::SocketAddr;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use tokio::net::TcpListener;

use crate::worker::routes;
use crate::worker::state::WorkerState;

/// Bytes of a sample of a link's bandwidth, at most.
const SAMPLE: usize = 64 << 20;

fn router(state: WorkerState) -> Router {
    Router::new()
        .route("/v1/worker", get(routes::facts))
        .route("/v1/worker/sink", post(routes::sink).layer(DefaultBodyLimit::max(SAMPLE)))
        .route("/v1/worker/rpc", get(routes::rpc))
        .route_layer(from_fn_with_state(state.clone(), routes::require_token))
        .route("/health", get(async || "ok"))
        .layer(from_fn_with_state(state.clone(), routes::require_address))
        .fallback(tightwad_net::http::unknown_path)
        .with_state(state)
}

/// Serves until `shutdown` completes.
///
/// # Errors
///
/// The listener's.
pub async fn serve_worker(
    listener: TcpListener,
    state: WorkerState,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let service = router(state).into_make_service_with_connect_info::<SocketAddr>();
    let serving = axum::serve(tightwad_net::http::at_once(listener), service);
    // Pools that are in use end with the process: their hosts go on without this worker.
    tokio::select! {
        done = serving => done,
        () = shutdown => Ok(()),
    }
}
