//! Runs the endpoint.

use std::future::Future;
use std::net::SocketAddr;

use tightwad_net::http::with_nodelay;
use tokio::net::TcpListener;

use crate::routes;
use crate::state::ServerState;

/// Serves until `shutdown` completes and the running requests have ended.
///
/// # Errors
///
/// The error of the listener.
pub async fn serve(
    listener: TcpListener,
    state: ServerState,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let listener = with_nodelay(listener);
    let service = routes::router(state).into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, service).with_graceful_shutdown(shutdown).await
}
