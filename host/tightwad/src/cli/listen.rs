//! Listening for other machines, and ending when told to.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use tokio::net::{TcpListener, lookup_host};
use tokio::signal::unix::{SignalKind, signal};

use crate::backend::Announcement;

/// Listens on `wanted`: beyond loopback, only with a token. `mend` says how to set one.
pub(super) async fn bind(wanted: &str, has_token: bool, mend: &str) -> Result<TcpListener> {
    let found = lookup_host(wanted)
        .await
        .with_context(|| format!("cannot listen on '{wanted}': it is no address such as 127.0.0.1:8088"));
    let addresses: Vec<SocketAddr> = found?.collect();
    if !has_token && addresses.iter().any(|address| !address.ip().is_loopback()) {
        bail!("listening on {wanted} lets other machines in: set a token, with {mend}");
    }
    let bound = TcpListener::bind(addresses.as_slice()).await;
    bound.with_context(|| format!("cannot listen on {wanted}; choose another address with --listen"))
}

/// What makes this process known on the local network. Whoever cannot be found can still be used by its address.
pub(super) fn announced(what: &str, made: Result<Announcement, String>) -> Option<Announcement> {
    made.inspect_err(|error| {
        tracing::warn!(error, "other machines cannot find this {what} by themselves; give them its address");
    })
    .ok()
}

/// Completes at the first signal to end; a second one ends the process at once.
pub(super) fn interrupted() -> Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        eprintln!("finishing the running requests; once more to stop at once");
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            std::process::exit(1);
        });
    })
}

/// Ends this process when the one that started it ends: that is when its standard input closes.
pub(super) fn end_with_parent() {
    std::thread::spawn(|| {
        // Nobody writes: this returns at the end.
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(0);
    });
}
