//! Lends memory and compute to pools. Each tunnel has its own RPC server process.
//!
//! llama.cpp's server accepts one client at a time, and aborts its process on invalid input. Separate processes isolate
//! the pools from each other. The memory of a pool is free in any case when its process has ended.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tightwad_engine::pool::{Device, MemoryBandwidth, RPC_PROTOCOL_VERSION};
use tightwad_tunnel::{MemoryQuota, TensorCache, serve_tunnel};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use crate::worker::info::{WORKER_PROTOCOL, WorkerInfo};

/// The maximum time until an RPC server accepts connections.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// The time between two attempts to connect to an RPC server.
const CONNECT_INTERVAL: Duration = Duration::from_millis(10);

/// The maximum number of tunnels at the same time. Each of them has a process.
const MAX_TUNNELS: usize = 32;

/// The worker has reached its limit of tunnels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} pools use this worker, which is its limit")]
pub(crate) struct TooManyTunnels(usize);

/// The resources that a worker lends.
#[derive(Debug, Clone)]
pub struct WorkerConfig {
    /// The compute device.
    pub device: Device,
    /// The memory bandwidth of the device.
    pub memory_bandwidth: MemoryBandwidth,
    /// The threads of a forward pass.
    pub threads: usize,
    /// The memory to lend, in bytes.
    pub memory: u64,
}

/// Lends this machine to pools.
pub struct WorkerService {
    config: WorkerConfig,
    cache: Option<Arc<TensorCache>>,
    quota: Arc<MemoryQuota>,
    tunnels: AtomicUsize,
}

impl WorkerService {
    /// A worker that lends the resources in `config` and caches tensors in `cache`.
    #[must_use]
    pub fn new(config: WorkerConfig, cache: Option<TensorCache>) -> Self {
        let quota = Arc::new(MemoryQuota::new(config.memory));
        Self { config, cache: cache.map(Arc::new), quota, tunnels: AtomicUsize::new(0) }
    }

    /// The description of this worker.
    pub(crate) fn info(&self) -> WorkerInfo {
        let (memory, used) = self.quota.usage();
        let device = &self.config.device;
        WorkerInfo {
            tightwad: env!("CARGO_PKG_VERSION").to_owned(),
            protocol: WORKER_PROTOCOL,
            rpc: RPC_PROTOCOL_VERSION,
            device: format!("{} ({})", device.name, device.description),
            gpu: device.is_gpu,
            threads: self.config.threads,
            memory,
            free: memory - used.min(memory),
            memory_bandwidth: self.config.memory_bandwidth.0,
            cached: self.cache.as_ref().map_or(0, |cache| cache.bytes()),
            pools: self.tunnels.load(Ordering::Relaxed),
        }
    }

    /// Reserves one of the worker's tunnels.
    pub(crate) fn reserve_tunnel(self: &Arc<Self>) -> Result<TunnelSlot, TooManyTunnels> {
        let add_one = |tunnels: usize| (tunnels < MAX_TUNNELS).then_some(tunnels + 1);
        match self.tunnels.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add_one) {
            Ok(_) => Ok(TunnelSlot(self.clone())),
            Err(tunnels) => Err(TooManyTunnels(tunnels)),
        }
    }

    async fn serve<S: AsyncRead + AsyncWrite + Send>(&self, host: S) -> io::Result<()> {
        // The process ends when this function returns.
        let (_process, server) = self.start_rpc_server().await?;
        serve_tunnel(host, server, self.cache.clone(), self.quota.clone()).await
    }

    /// Starts an RPC server and connects to the server.
    async fn start_rpc_server(&self) -> io::Result<(Child, TcpStream)> {
        // The port is free now. If another process takes the port first, the server fails to start.
        let port_holder = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = port_holder.local_addr()?;
        drop(port_holder);
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["worker", "--serve", &address.to_string()]);
        command.args(["--threads", &self.config.threads.to_string()]);
        // The server's standard input closes when this process ends. The server then ends too.
        command.stdin(Stdio::piped()).stdout(Stdio::null()).kill_on_drop(true);
        let mut process = command.spawn()?;
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            match TcpStream::connect(address).await {
                Ok(server) => return Ok((process, server)),
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(_) => sleep(CONNECT_INTERVAL).await,
            }
            if let Some(status) = process.try_wait()? {
                return Err(io::Error::other(format!("the RPC server ended: {status}")));
            }
        }
    }
}

/// The right to one tunnel. Dropping the slot returns it.
pub(crate) struct TunnelSlot(Arc<WorkerService>);

impl TunnelSlot {
    /// Serves one tunnel until it ends.
    pub(crate) async fn serve<S: AsyncRead + AsyncWrite + Send>(self, host: S, from: SocketAddr) {
        match self.0.serve(host).await {
            Ok(()) => tracing::debug!(host = %from, "a pool closed its tunnel"),
            Err(error) => tracing::warn!(host = %from, %error, "a tunnel failed"),
        }
    }
}

impl Drop for TunnelSlot {
    fn drop(&mut self) {
        self.0.tunnels.fetch_sub(1, Ordering::Relaxed);
    }
}
