//! The endpoint: OpenAI's HTTP interface over backends.

mod auth;
mod body;
mod choices;
mod error;
mod handlers;
mod limit;
mod metrics;
mod models;
pub mod node;
mod reply;
mod routes;
mod state;
mod table;

use std::future::Future;
use std::net::SocketAddr;

use axum::serve::ListenerExt;
pub use metrics::{Collector, Metrics};
pub use state::ServerState;
pub use table::{RouteTable, Routes};
use tokio::net::TcpListener;

/// Serves until `shutdown` completes and the running requests have ended.
///
/// # Errors
///
/// The listener's.
pub async fn serve(
    listener: TcpListener,
    state: ServerState,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    // Small messages must not wait for the answer to the ones before.
    let listener = listener.tap_io(|connection| {
        if let Err(error) = connection.set_nodelay(true) {
            tracing::debug!(%error, "a connection cannot be set to send at once");
        }
    });
    let service = routes::router(state).into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, service).with_graceful_shutdown(shutdown).await
}
