//! The worker's end of a tunnel: relays commands to the RPC server on loopback, and its replies to the host.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tightwad_core::printable;
use tokio::io::{AsyncRead, AsyncWrite, BufReader, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, mpsc};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::timeout;

use crate::cache::{Listing, TensorCache};
use crate::command_relay::CommandRelay;
use crate::frame::{FrameKind, FrameWriter};
use crate::heartbeat::{MonitoredReader, send_heartbeats};
use crate::protocol::{HEARTBEAT_TIMEOUT, MAX_REASON_BYTES, READ_BUFFER_BYTES};
use crate::quota::{MemoryQuota, Reservations};
use crate::reply_relay::{MAX_EXPECTED_REPLIES, ReplyRelay};

/// The maximum time to send the reason for the end of a tunnel.
const ERROR_TIMEOUT: Duration = Duration::from_secs(2);

/// Relays one host's commands to the RPC server behind `server`. Ends when either end closes, when the host sends no
/// heartbeat, or at the first invalid frame.
///
/// # Errors
///
/// Returns the failure of the tunnel, and sends its message to the host if the connection still works.
pub async fn serve_tunnel<S>(
    host: S,
    server: TcpStream,
    cache: Option<Arc<TensorCache>>,
    quota: Arc<MemoryQuota>,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    server.set_nodelay(true)?;
    let (from_host, to_host) = tokio::io::split(host);
    let to_host = Arc::new(Mutex::new(FrameWriter::new(to_host)));
    // A task of its own: heartbeats continue while the relays wait for the disk, the RPC server or a lock.
    let mut heartbeats = JoinSet::new();
    let writer = to_host.clone();
    heartbeats.spawn(async move { send_heartbeats(&writer).await });
    let (from_host, monitor) = MonitoredReader::new(from_host);
    let from_host = BufReader::with_capacity(READ_BUFFER_BYTES, from_host);
    let relaying = async {
        let listing = list_tensors(cache.as_ref()).await?;
        let digests = listing.as_ref().map(|listing| listing.digests.concat()).unwrap_or_default();
        to_host.lock().await.write(FrameKind::Cached, &[&digests]).await?;
        relay(from_host, &to_host, server, cache, listing, quota).await
    };
    let result = tokio::select! {
        result = relaying => result,
        Some(result) = heartbeats.join_next() => result.map_err(io::Error::other).flatten(),
        () = monitor.timed_out() => Err(no_heartbeat()),
    };
    heartbeats.shutdown().await;
    if let Err(error) = &result {
        let message = printable(&error.to_string(), MAX_REASON_BYTES);
        let mut to_host = to_host.lock().await;
        // A host that does not receive the message detects the end of the connection.
        let _ = timeout(ERROR_TIMEOUT, to_host.write(FrameKind::Error, &[message.as_bytes()])).await;
    }
    result
}

/// Lists the cached tensors.
async fn list_tensors(cache: Option<&Arc<TensorCache>>) -> io::Result<Option<Listing>> {
    let Some(cache) = cache.cloned() else { return Ok(None) };
    spawn_blocking(move || Some(cache.list())).await.map_err(io::Error::other)
}

/// Relays commands and replies until either end closes.
async fn relay<S: AsyncRead + AsyncWrite + Send>(
    from_host: impl AsyncRead + Unpin,
    to_host: &Mutex<FrameWriter<WriteHalf<S>>>,
    server: TcpStream,
    cache: Option<Arc<TensorCache>>,
    listing: Option<Listing>,
    quota: Arc<MemoryQuota>,
) -> io::Result<()> {
    let (from_server, to_server) = server.into_split();
    let reservations = Reservations::new(quota);
    let (expected, expected_replies) = mpsc::channel(MAX_EXPECTED_REPLIES);
    let mut commands = CommandRelay::new(to_server, expected, &reservations, cache, listing);
    let mut replies = ReplyRelay::new(from_server, expected_replies, to_host, &reservations);
    tokio::select! {
        result = commands.run(from_host) => result,
        result = replies.run() => result,
    }
}

fn no_heartbeat() -> io::Error {
    io::Error::other(format!("no heartbeat from the host for {} s", HEARTBEAT_TIMEOUT.as_secs()))
}

#[cfg(test)]
mod tests;
