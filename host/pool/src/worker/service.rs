//! Lends memory and compute to pools. Each tunnel has its own RPC server process.
//!
//! llama.cpp's server accepts one client at a time, and aborts its process on invalid input. Separate processes isolate
//! the pools from each other. The memory of a pool is free in any case when its process has ended.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tightwad_core::random_hex;
use tightwad_engine::pool::{Device, MemoryBandwidth, RPC_PROTOCOL_VERSION};
use tightwad_tunnel::{MemoryQuota, TensorCache, serve_tunnel};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::worker::info::{WORKER_PROTOCOL, WorkerInfo};
use crate::worker::rpc_server::RpcServer;

/// The maximum number of tunnels at the same time. Each of them has a process.
const MAX_TUNNELS: usize = 32;
/// The random bytes of the id by which hosts recognize a worker with two addresses.
const INSTANCE_ID_BYTES: usize = 16;

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
    instance: String,
}

impl WorkerService {
    /// A worker that lends the resources in `config` and caches tensors in `cache`.
    #[must_use]
    pub fn new(config: WorkerConfig, cache: Option<TensorCache>) -> Self {
        let quota = Arc::new(MemoryQuota::new(config.memory));
        let instance = random_hex::<INSTANCE_ID_BYTES>();
        Self { config, cache: cache.map(Arc::new), quota, tunnels: AtomicUsize::new(0), instance }
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
            instance: self.instance.clone(),
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

    async fn serve<S: AsyncRead + AsyncWrite + Send + 'static>(&self, host: S) -> io::Result<()> {
        let (process, connection) = RpcServer::start(self.config.threads).await?;
        let result = serve_tunnel(host, connection, self.cache.clone(), self.quota.clone()).await;
        process.stop().await;
        result
    }
}

/// The right to one tunnel. Dropping the slot returns it.
pub(crate) struct TunnelSlot(Arc<WorkerService>);

impl TunnelSlot {
    /// Serves one tunnel until it ends.
    pub(crate) async fn serve<S: AsyncRead + AsyncWrite + Send + 'static>(self, host: S, from: SocketAddr) {
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
