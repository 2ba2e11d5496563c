//! Listening sockets, announcements, and shutdown by signals.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use tightwad_net::door::Shutdown;
use tightwad_net::{Announcement, DiscoveryError};
use tokio::net::{TcpListener, lookup_host};
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::timeout;

/// Listens on `address`. Addresses other than loopback need a token; `token_source` names its setting.
pub(crate) async fn bind(address: &str, has_token: bool, token_source: &str) -> Result<TcpListener> {
    let addresses = resolve(address).await?;
    if !has_token && addresses.iter().any(|address| !address.ip().is_loopback()) {
        bail!("other machines can reach {address}. Set a token with {token_source}.");
    }
    listen(address, &addresses).await
}

/// The socket addresses that `address` names.
pub(crate) async fn resolve(address: &str) -> Result<Vec<SocketAddr>> {
    let resolved = lookup_host(address).await.map_err(|error| {
        anyhow!("'{address}' is not an address: {error}. Write HOST:PORT, such as 127.0.0.1:8088.")
    });
    Ok(resolved?.collect())
}

/// Listens on the first of `addresses` that is free.
pub(crate) async fn listen(address: &str, addresses: &[SocketAddr]) -> Result<TcpListener> {
    let listener = TcpListener::bind(addresses).await;
    listener.map_err(|error| anyhow!("cannot listen on {address}: {error}. Choose another address."))
}

/// The address at which other machines reach a server on `address`: that of the network with the default route for a server
/// on all networks.
pub(crate) fn reachable(address: SocketAddr) -> SocketAddr {
    if !address.ip().is_unspecified() {
        return address;
    }
    // An address for documentation (RFC 5737). Nothing is sent.
    let route = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).and_then(|socket| {
        socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9))?;
        socket.local_addr()
    });
    let ip = route.map_or(Ipv4Addr::LOCALHOST.into(), |route| route.ip());
    SocketAddr::new(ip, address.port())
}

/// Logs a failed announcement on the local network, because other machines can still use the address.
pub(crate) fn optional_announcement(
    role: &str,
    result: Result<Announcement, DiscoveryError>,
) -> Option<Announcement> {
    result
        .inspect_err(|error| {
            let error = error.to_string();
            tracing::warn!(error, "this {role} is not announced. Give other machines its address.");
        })
        .ok()
}

/// The time that running requests have to finish after a signal.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Drain {
    /// Seconds that running requests get after the first SIGTERM or SIGINT. A second signal ends the process at once.
    #[arg(long = "drain-timeout", value_name = "SECONDS", default_value_t = 30)]
    seconds: u64,
}

/// Streams end this long before the process does, but not before three quarters of the drain timeout.
const STREAM_END_TIME: Duration = Duration::from_millis(500);

impl Drain {
    /// The shutdown of a server with requests to finish. Its deadline is shortly before the end of the process.
    pub(crate) fn shutdown(self) -> Result<Shutdown> {
        let timeout = Duration::from_secs(self.seconds);
        Ok(Shutdown::after(self.shutdown_signal()?, timeout - STREAM_END_TIME.min(timeout / 4)))
    }

    /// Completes at the first SIGTERM or SIGINT. The process ends at the second one, or after the drain timeout. A
    /// separate thread waits for both, so that a blocked runtime cannot delay the end.
    pub(crate) fn shutdown_signal(self) -> Result<impl Future<Output = ()>> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (mut terminate, mut interrupt) = {
            let _runtime_guard = runtime.enter();
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)
        };
        let (first_signal, received) = oneshot::channel();
        let wait = async move {
            let mut next_signal =
                async || tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} };
            next_signal().await;
            let seconds = self.seconds;
            eprintln!(
                "finishing running requests for at most {seconds} s. A second signal ends the process at once."
            );
            // The receiver is gone if the server has ended.
            let _ = first_signal.send(());
            let timed_out = timeout(Duration::from_secs(seconds), next_signal()).await.is_err();
            if COMMAND_FINISHED.load(Ordering::Acquire) {
                return;
            }
            if timed_out {
                eprintln!("the drain timeout of {seconds} s has passed. Some requests did not finish.");
            }
            tightwad_engine::exit(1);
        };
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || runtime.block_on(wait))?;
        // A panic of the signal thread must not end the process.
        Ok(async move {
            if received.await.is_err() {
                std::future::pending().await
            }
        })
    }
}

/// True after the command has finished, while only destructors run.
static COMMAND_FINISHED: AtomicBool = AtomicBool::new(false);

/// Records that the command has finished, so that the signal thread does not change the exit code.
pub(crate) fn set_command_finished() {
    COMMAND_FINISHED.store(true, Ordering::Release);
}

/// Completes at the first SIGTERM or SIGINT, for commands without requests to finish.
pub(crate) fn shutdown_signal() -> Result<impl Future<Output = ()>> {
    Drain { seconds: 30 }.shutdown_signal()
}

/// Ends this process when its parent ends. The end of the parent closes standard input.
pub(crate) fn end_with_parent() {
    std::thread::spawn(|| {
        // The parent never writes, so the copy returns only when the parent has ended.
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        tightwad_engine::exit(0);
    });
}
