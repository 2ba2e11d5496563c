//! The router of a worker. `host/book/src/protocols/worker.md` describes each path.

use std::future::Future;
use std::net::SocketAddr;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use tokio::net::TcpListener;

use crate::worker::routes;
use crate::worker::state::WorkerState;

/// The maximum size of a bandwidth sample.
const MAX_SAMPLE_BYTES: usize = 64 << 20;

fn router(state: WorkerState) -> Router {
    Router::new()
        .route("/v1/worker", get(routes::info))
        .route("/v1/worker/sink", post(routes::sink).layer(DefaultBodyLimit::max(MAX_SAMPLE_BYTES)))
        .route("/v1/worker/rpc", get(routes::rpc))
        .route_layer(from_fn_with_state(state.clone(), routes::require_token))
        .route("/health", get(async || "ok"))
        .layer(from_fn_with_state(state.clone(), routes::require_address))
        .fallback(tightwad_net::http::unknown_path)
        .with_state(state)
}

/// Serves hosts until `shutdown` completes.
///
/// # Errors
///
/// Returns the listener's error.
pub async fn serve_worker(
    listener: TcpListener,
    state: WorkerState,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let service = router(state).into_make_service_with_connect_info::<SocketAddr>();
    let serving = axum::serve(tightwad_net::http::with_nodelay(listener), service);
    // Open tunnels end with this process. Their hosts continue without this worker.
    tokio::select! {
        result = serving => result,
        () = shutdown => Ok(()),
    }
}
