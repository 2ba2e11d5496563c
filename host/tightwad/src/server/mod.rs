//! The endpoint: OpenAI's HTTP interface over backends.

mod auth;
mod body;
mod choices;
mod control;
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
pub mod worker;

use std::future::Future;
use std::net::SocketAddr;

use axum::serve::{ListenerExt, TapIo};
pub use control::Control;
pub use metrics::{Collector, Metrics};
pub use state::{CurrentToken, ServerState};
pub use table::{RouteTable, Routes};
use tokio::net::{TcpListener, TcpStream};

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
    let listener = at_once(listener);
    let service = routes::router(state).into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, service).with_graceful_shutdown(shutdown).await
}

/// Small messages must not wait for the answer to the ones before.
fn at_once(listener: TcpListener) -> TapIo<TcpListener, fn(&mut TcpStream)> {
    listener.tap_io(|connection| {
        if let Err(error) = connection.set_nodelay(true) {
            tracing::debug!(%error, "a connection cannot be set to send at once");
        }
    })
}
