//! The endpoint: OpenAI's HTTP interface over backends.

use std::future::Future;
use std::net::SocketAddr;

use tightwad_net::http::at_once;
use tokio::net::TcpListener;

use crate::routes;
use crate::state::ServerState;

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
