//! The server of a seeder. `host/book/src/protocols/seeder.md` explains every field.

use std::future::Future;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use tightwad_net::door::{self, DoorConfig, Encryption, Shutdown};
use tokio::net::TcpListener;

use crate::net::seed::state::SeedState;
use crate::net::seed::{data, guard, refusal, routes};

/// The routes below `/v1/swarm`. The server must be [`tightwad_net::door::serve`], which records the addresses of
/// clients: without addresses, an allow list refuses every request.
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

/// Serves until `shutdown` completes. Does not wait for running uploads: peers continue their downloads at other seeders.
///
/// # Errors
///
/// The listener's.
pub async fn serve(
    listener: TcpListener,
    state: SeedState,
    encryption: Encryption,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let access = state.access.clone();
    let config = DoorConfig { encryption, ..DoorConfig::new(move || access.has_token()) };
    let router = router(state.clone())
        .route("/health", get(async || "ok"))
        .route("/ready", get(async || "ok"))
        .fallback(refusal::unknown_path)
        // Outside of all routes: an address that is not allowed learns nothing, not even which paths exist.
        .layer(from_fn_with_state(state, guard::require_address));
    door::serve(listener, router, config, Shutdown::after(shutdown, Duration::ZERO)).await.map(drop)
}
