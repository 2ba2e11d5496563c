//! The endpoint: OpenAI's HTTP interface over backends.

mod auth;
mod body;
mod choices;
mod error;
mod handlers;
mod limit;
mod metrics;
mod models;
mod reply;
mod routes;
mod state;
mod table;

use std::future::Future;

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
    axum::serve(listener, routes::router(state)).with_graceful_shutdown(shutdown).await
}
