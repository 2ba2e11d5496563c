//! Runs the endpoint.

use std::io;

use tightwad_net::door::{self, DoorConfig, Ended, Shutdown};
use tokio::net::TcpListener;

use crate::routes;
use crate::state::ServerState;

/// Serves until `shutdown` starts and the running requests have ended.
///
/// # Errors
///
/// The error of the listener, or [`io::ErrorKind::TimedOut`] when requests had not ended at the deadline of `shutdown`.
pub async fn serve(listener: TcpListener, state: ServerState, shutdown: Shutdown) -> io::Result<()> {
    let keys = state.keys.clone();
    let config = DoorConfig {
        web: state.web.clone(),
        encryption: state.encryption.clone(),
        ..DoorConfig::new(move || !keys.accepts_everyone())
    };
    let state = ServerState { shutdown: shutdown.clone(), ..state };
    match door::serve(listener, routes::router(state), config, shutdown).await? {
        Ended::Complete => Ok(()),
        Ended::AtDeadline => {
            Err(io::Error::new(io::ErrorKind::TimedOut, "the drain timeout has ended unfinished requests"))
        }
    }
}
