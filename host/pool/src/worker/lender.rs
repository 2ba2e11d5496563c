//! Lending memory and computing: each pool gets an RPC server of its own, in a process of its own.
//!
//! llama.cpp's server takes one client at a time, and ends its process on nonsense: a process a pool keeps
//! pools apart, and its memory is free again when the pool is gone, whatever happened.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tightwad_engine::pool::{Device, RPC_PROTOCOL, Speed};
use tightwad_tunnel::{Allowance, Cache, serve_tunnel};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use crate::worker::facts::{WORKER_PROTOCOL, WorkerFacts};

/// How long an RPC server may take to begin.
const STARTING: Duration = Duration::from_secs(10);
/// How often it is looked for.
const LOOK: Duration = Duration::from_millis(10);

/// Pools that may use a worker at once: each has a process of its own.
const POOLS: usize = 32;

/// As many pools use a worker as it allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} pools use this worker, which is as many as it allows")]
pub(crate) struct TooManyPools(usize);

/// What is lent.
#[derive(Debug, Clone)]
pub struct LenderConfig {
    /// The device.
    pub device: Device,
    /// How fast it is.
    pub speed: Speed,
    /// Threads of a forward pass.
    pub threads: usize,
    /// Bytes to lend.
    pub memory: u64,
}

/// Lends this machine to pools.
pub struct Lender {
    config: LenderConfig,
    cache: Option<Arc<Cache>>,
    memory: Arc<Allowance>,
    pools: AtomicUsize,
}

impl Lender {
    /// Lends what `config` says, and keeps tensors in `cache`.
    #[must_use]
    pub fn new(config: LenderConfig, cache: Option<Cache>) -> Self {
        let memory = Arc::new(Allowance::new(config.memory));
        Self { config, cache: cache.map(Arc::new), memory, pools: AtomicUsize::new(0) }
    }

    /// What it says of itself.
    pub(crate) fn facts(&self) -> WorkerFacts {
        let (memory, used) = self.memory.now();
        let device = &self.config.device;
        WorkerFacts {
            tightwad: env!("CARGO_PKG_VERSION").to_owned(),
            protocol: WORKER_PROTOCOL,
            rpc: RPC_PROTOCOL,
            device: format!("{} ({})", device.name, device.description),
            gpu: device.gpu,
            threads: self.config.threads,
            memory,
            free: memory - used.min(memory),
            speed: self.config.speed.0,
            cached: self.cache.as_ref().map_or(0, |cache| cache.bytes()),
            pools: self.pools.load(Ordering::Relaxed),
        }
    }

    /// A place for one more pool.
    pub(crate) fn place(self: &Arc<Self>) -> Result<Place, TooManyPools> {
        let more = |pools: usize| (pools < POOLS).then_some(pools + 1);
        match self.pools.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more) {
            Ok(_) => Ok(Place(self.clone())),
            Err(pools) => Err(TooManyPools(pools)),
        }
    }

    async fn serve<S: AsyncRead + AsyncWrite + Send>(&self, host: S) -> io::Result<()> {
        // Ends with this function, whichever way.
        let (_process, server) = self.start().await?;
        serve_tunnel(host, server, self.cache.clone(), self.memory.clone()).await
    }

    /// Starts an RPC server, and connects to it.
    async fn start(&self) -> io::Result<(Child, TcpStream)> {
        // A port that is free now; should someone take it meanwhile, the server ends at once.
        let probe = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = probe.local_addr()?;
        drop(probe);
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["worker", "--serve", &address.to_string()]);
        command.args(["--threads", &self.config.threads.to_string()]);
        // Its standard input ends with this process, and so does it.
        command.stdin(Stdio::piped()).stdout(Stdio::null()).kill_on_drop(true);
        let mut process = command.spawn()?;
        let until = Instant::now() + STARTING;
        loop {
            match TcpStream::connect(address).await {
                Ok(server) => return Ok((process, server)),
                Err(error) if Instant::now() > until => return Err(error),
                Err(_) => sleep(LOOK).await,
            }
            if let Some(status) = process.try_wait()? {
                return Err(io::Error::other(format!("the RPC server ended: {status}")));
            }
        }
    }
}

/// One of the places for pools; given back when dropped.
pub(crate) struct Place(Arc<Lender>);

impl Place {
    /// Serves one pool's connection to its end.
    pub(crate) async fn lend<S: AsyncRead + AsyncWrite + Send>(self, host: S, from: SocketAddr) {
        match self.0.serve(host).await {
            Ok(()) => tracing::debug!(host = %from, "a pool gave this machine back"),
            Err(error) => tracing::warn!(host = %from, %error, "a pool's connection broke"),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.pools.fetch_sub(1, Ordering::Relaxed);
    }
}
