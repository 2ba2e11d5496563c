//! The server of a seeder. `host/book/src/protocols/seeder.md` explains every field.

use std::future::Future;
use std::net::SocketAddr;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use axum::serve::ListenerExt;
use tokio::net::{TcpListener, TcpStream};

use crate::net::seed::state::SeedState;
use crate::net::seed::{data, guard, refusal, routes};

/// The routes below `/v1/swarm`. The server must use `into_make_service_with_connect_info` with
/// [`SocketAddr`]: without addresses, an allow list refuses every request.
pub fn router(state: SeedState) -> Router {
    Router::new()
        .route("/v1/swarm", get(routes::list))
        .route("/v1/swarm/{root}/manifest", get(routes::manifest))
        .route("/v1/swarm/{root}/have", get(routes::have))
        .route(
            "/v1/swarm/{root}/peers",
            post(routes::peers).layer(DefaultBodyLimit::max(routes::MAX_ANNOUNCE_BYTES)),
        )
        .route("/v1/swarm/{root}/data", get(data::data))
        .route_layer(from_fn_with_state(state.clone(), guard::require_token))
        .route_layer(from_fn_with_state(state.clone(), guard::require_address))
        .with_state(state)
}

/// Serves until `shutdown` completes. Does not wait for running uploads.
///
/// # Errors
///
/// The listener's.
pub async fn serve(
    listener: TcpListener,
    state: SeedState,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    // Requests and replies are small, and Nagle's algorithm would delay them.
    let listener = listener.tap_io(|connection: &mut TcpStream| {
        if let Err(error) = connection.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY cannot be set for a connection");
        }
    });
    let service = router(state).route("/health", get(async || "ok")).fallback(refusal::unknown_path);
    let serving = axum::serve(listener, service.into_make_service_with_connect_info::<SocketAddr>());
    // Not a graceful shutdown: peers continue their downloads at other seeders.
    tokio::select! {
        done = serving => done,
        () = shutdown => Ok(()),
    }
}
