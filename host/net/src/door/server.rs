//! The accept loop.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

use crate::door::config::DoorConfig;
use crate::door::connection::{self, ConnectionContext};
use crate::door::shutdown::Shutdown;
use crate::door::table::ConnectionTable;
use crate::door::{layers, socket};
use crate::http::error::ApiError;

/// The time after the drain deadline in which connections send their last bytes.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(200);
/// The time until the next attempt after `accept` has failed.
const ACCEPT_RETRY_INTERVAL: Duration = Duration::from_millis(20);
/// The shortest time between two warnings.
const WARNING_INTERVAL: Duration = Duration::from_secs(10);
/// Connections may have one in this number of the process's open files.
const DESCRIPTOR_SHARE: usize = 2;

/// Serves `router` behind the door until `shutdown` starts and the running requests have ended, at the latest until
/// its deadline.
///
/// # Errors
///
/// The error of the listener.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    config: DoorConfig,
    shutdown: Shutdown,
) -> io::Result<Ended> {
    let mut door = Door::new(router, config, listener.local_addr()?, shutdown.clone());
    let started = shutdown.started();
    tokio::pin!(started);
    loop {
        tokio::select! {
            accepted = listener.accept() => door.on_accept(accepted, &listener).await,
            Some(_) = door.connections.join_next() => {}
            () = &mut started => break,
        }
    }
    // The system refuses new connections from now on. Another process can take the address.
    drop(listener);
    Ok(door.drain(&shutdown).await)
}

/// How a server ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// All requests ended before the deadline of the shutdown.
    Complete,
    /// The deadline ended the last requests.
    AtDeadline,
}

/// The open connections, and what they share. Dropping it closes them.
struct Door {
    table: Arc<ConnectionTable>,
    context: ConnectionContext,
    connections: JoinSet<()>,
    warnings: Warnings,
}

impl Door {
    fn new(router: Router, config: DoorConfig, bound: SocketAddr, shutdown: Shutdown) -> Self {
        let limits = config.limits.clone();
        let max_total = limits.max_connections.min(socket::descriptor_limit() / DESCRIPTOR_SHARE).max(1);
        let table = Arc::new(ConnectionTable::new(max_total, limits.max_connections_per_address));
        let encryption = config.encryption.clone();
        let router = layers::apply(router, config, bound, shutdown.clone());
        let context = ConnectionContext { router, limits, encryption, shutdown };
        Self { table, context, connections: JoinSet::new(), warnings: Warnings::default() }
    }

    async fn on_accept(&mut self, accepted: io::Result<(TcpStream, SocketAddr)>, listener: &TcpListener) {
        match accepted {
            Ok((stream, peer)) => self.open(stream, peer),
            Err(error) => {
                self.warnings.warn(|| tracing::warn!(%error, "cannot accept a connection"));
                make_room(&self.table, &error, listener).await;
            }
        }
    }

    fn open(&mut self, stream: TcpStream, peer: SocketAddr) {
        if let Err(error) = socket::set_options(&stream) {
            tracing::debug!(%peer, %error, "cannot set the options of a connection");
        }
        let Some(place) = self.table.enter(peer.ip()) else {
            self.warnings.warn(|| tracing::warn!(%peer, "refused a connection: all connections work"));
            // A client that cannot read this sees a closed connection.
            let _ = stream.try_write(busy_response().as_bytes());
            return;
        };
        self.connections.spawn(connection::serve(self.context.clone(), stream, peer, place));
    }

    /// Waits until the running requests have ended, at most until the deadline.
    async fn drain(mut self, shutdown: &Shutdown) -> Ended {
        let deadline = shutdown.drain_deadline().await;
        let end = async { while self.connections.join_next().await.is_some() {} };
        match timeout_at(deadline + CLOSE_TIMEOUT, end).await {
            Ok(()) if Instant::now() < deadline => Ended::Complete,
            _ => Ended::AtDeadline,
        }
    }
}

/// The response to a connection without a place.
fn busy_response() -> String {
    ApiError::unavailable("the server has its maximum of connections; try again later").closing_response()
}

/// Makes room after a failed accept, and waits for the next attempt. The usual reason is a lack of descriptors: the
/// connection that has waited for its client for the longest time gives its own. Linux reports that lack even when no
/// client waits; then the connections stay.
async fn make_room(table: &ConnectionTable, error: &io::Error, listener: &TcpListener) {
    if !matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
        if socket::client_waits(listener) {
            table.evict_one();
        }
        sleep(ACCEPT_RETRY_INTERVAL).await;
    }
}

/// Limits the rate of warnings, which an attacker could cause without end.
#[derive(Default)]
struct Warnings(Option<Instant>);

impl Warnings {
    fn warn(&mut self, warn: impl FnOnce()) {
        if self.0.is_none_or(|last| last.elapsed() >= WARNING_INTERVAL) {
            self.0 = Some(Instant::now());
            warn();
        }
    }
}
