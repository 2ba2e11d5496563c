//! Listening for other machines, and ending when told to.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tightwad_net::{Announcement, DiscoveryError};
use tokio::net::{TcpListener, lookup_host};
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::timeout;

/// Listens on `wanted`: beyond loopback, only with a token. `mend` says how to set one.
pub(crate) async fn bind(wanted: &str, has_token: bool, mend: &str) -> Result<TcpListener> {
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
pub(crate) fn announced(what: &str, made: Result<Announcement, DiscoveryError>) -> Option<Announcement> {
    made.inspect_err(|error| {
        let error = error.to_string();
        tracing::warn!(error, "other machines cannot find this {what} by themselves; give them its address");
    })
    .ok()
}

/// How long a server takes to end.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Drain {
    /// Seconds that running requests get after the first SIGTERM or SIGINT; a second signal ends the process at once.
    #[arg(long = "drain", value_name = "SECONDS", default_value_t = 30)]
    seconds: u64,
}

impl Drain {
    /// Completes at the first signal to end. The process ends at the second one, or when the time is over. A thread
    /// of its own sees to that, so that nothing that holds up the runtime holds up the end.
    pub(crate) fn interrupted(self) -> Result<impl Future<Output = ()>> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (mut terminate, mut interrupt) = {
            let _inside = runtime.enter();
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)
        };
        let (first, begun) = oneshot::channel();
        let wait = async move {
            let mut next = async || tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} };
            next().await;
            let seconds = self.seconds;
            eprintln!("finishing the running requests, for at most {seconds} s; once more to stop at once");
            // A server that ended already does not listen any more.
            let _ = first.send(());
            let over = timeout(Duration::from_secs(seconds), next()).await.is_err();
            if ENDED.load(Ordering::Acquire) {
                return;
            }
            if over {
                eprintln!("{seconds} s are over: ending with requests unfinished");
            }
            tightwad_engine::exit(1);
        };
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || runtime.block_on(wait))?;
        // A signal thread that panicked must not end the process.
        Ok(async move {
            if begun.await.is_err() {
                std::future::pending().await
            }
        })
    }
}

/// True when the command is done, and only destructors run.
static ENDED: AtomicBool = AtomicBool::new(false);

/// Notes that the command is done: nothing more is to be finished.
pub(crate) fn ended() {
    ENDED.store(true, Ordering::Release);
}

/// Completes at the first signal to end, for commands that have nothing to finish.
pub(crate) fn interrupted() -> Result<impl Future<Output = ()>> {
    Drain { seconds: 30 }.interrupted()
}

/// Ends this process when the one that started it ends: that is when its standard input closes.
pub(crate) fn end_with_parent() {
    std::thread::spawn(|| {
        // Nobody writes: this returns at the end.
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        tightwad_engine::exit(0);
    });
}
