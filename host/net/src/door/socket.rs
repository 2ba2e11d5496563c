//! Options of sockets, and the limit on open files.

use std::io;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Resource, getrlimit, setrlimit};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::Interest;
use tokio::net::{TcpListener, TcpStream};

/// The silence after which the system asks whether the client's machine still exists.
const KEEPALIVE_TIME: Duration = Duration::from_secs(60);
/// The time between two such questions.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// The number of unanswered questions that end a connection.
const KEEPALIVE_RETRIES: u32 = 3;
/// The time in which the client's machine must acknowledge sent bytes.
#[cfg(target_os = "linux")]
const ACKNOWLEDGE_TIMEOUT: Duration = Duration::from_secs(60);

/// Sets the options of an accepted socket: a small message must not wait for the acknowledgement of earlier ones, and a
/// client without power or network must not hold a connection for ever.
pub(crate) fn set_options(stream: &TcpStream) -> io::Result<()> {
    let socket = SockRef::from(stream);
    socket.set_tcp_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_TIME).with_interval(KEEPALIVE_INTERVAL);
    socket.set_tcp_keepalive(&keepalive.with_retries(KEEPALIVE_RETRIES))?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(ACKNOWLEDGE_TIMEOUT))?;
    Ok(())
}

/// Completes when the client has closed its side of the connection for writing.
pub(crate) async fn write_side_closed(stream: &TcpStream) {
    // The priority interest waits for the end of the stream only, and not for bytes before it.
    #[cfg(target_os = "linux")]
    if stream.ready(Interest::PRIORITY).await.is_ok_and(|ready| ready.is_read_closed()) {
        return;
    }
    #[cfg(not(target_os = "linux"))]
    while let Ok(ready) = stream.ready(Interest::READABLE).await {
        if ready.is_read_closed() {
            return;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    std::future::pending().await
}

/// Completes when the connection has broken: the client's machine has answered sent bytes with a reset.
pub(crate) async fn broken(stream: &TcpStream) {
    if stream.ready(Interest::ERROR).await.is_err() {
        std::future::pending().await
    }
}

/// Whether a client waits to be accepted.
pub(crate) fn client_waits(listener: &TcpListener) -> bool {
    let mut listeners = [PollFd::new(listener, PollFlags::IN)];
    poll(&mut listeners, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0)
}

/// Raises this process's limit on open files to the most that the system allows it. Without it, a thousand connections
/// would take the descriptors that model files and tunnels need.
pub fn raise_descriptor_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::debug!(%error, "cannot raise the limit on open files");
        }
    }
}

/// The number of files that this process may open. `usize::MAX`: without a limit.
#[must_use]
pub fn descriptor_limit() -> usize {
    let current = getrlimit(Resource::Nofile).current;
    current.map_or(usize::MAX, |current| usize::try_from(current).unwrap_or(usize::MAX))
}
