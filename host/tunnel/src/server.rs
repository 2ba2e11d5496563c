//! The worker's end of a tunnel: relays commands to the RPC server on loopback, and its replies to the host.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tightwad_core::sync;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use crate::cache::TensorCache;
use crate::frame::{
    CACHE_FLAG_OFFSET, FrameKind, HEADER_BYTES, Message, TENSOR_HEADER_BYTES, command, write_frame,
};
use crate::graph::GraphCodec;
use crate::heartbeat::{MonitoredReader, send_heartbeats};
use crate::protocol::{HEARTBEAT_TIMEOUT, READ_BUFFER_BYTES};

/// The memory that a worker lends. All tunnels of the worker share it.
#[derive(Debug)]
pub struct MemoryQuota {
    limit_bytes: u64,
    used_bytes: AtomicU64,
}

impl MemoryQuota {
    /// A quota of `limit_bytes` bytes.
    #[must_use]
    pub fn new(limit_bytes: u64) -> Self {
        Self { limit_bytes, used_bytes: AtomicU64::new(0) }
    }

    /// The limit and the reserved part of it, in bytes.
    #[must_use]
    pub fn usage(&self) -> (u64, u64) {
        (self.limit_bytes, self.used_bytes.load(Ordering::Relaxed))
    }

    /// Reserves `bytes`. Returns false if the quota has less left.
    fn reserve(&self, bytes: u64) -> bool {
        let fits = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= self.limit_bytes);
        self.used_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
    }

    fn release(&self, bytes: u64) {
        self.used_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// The reservations of one tunnel. Dropping them releases their memory.
struct Reservations {
    quota: Arc<MemoryQuota>,
    /// The size of an allocation that the server has not answered yet.
    pending: Mutex<Option<u64>>,
    /// The sizes of the buffers, by the server's id of the buffer.
    buffers: Mutex<HashMap<u64, u64>>,
}

impl Reservations {
    /// Reserves memory for an allocation. Returns false if the quota has less left.
    fn begin(&self, bytes: u64) -> io::Result<bool> {
        let mut pending = lock(&self.pending);
        if pending.is_some() {
            // llama.cpp waits for each reply. With two pending requests, a reply could belong to either size.
            return Err(io::Error::other("the host requested a second buffer before the reply to the first"));
        }
        let reserved = self.quota.reserve(bytes);
        *pending = reserved.then_some(bytes);
        Ok(reserved)
    }

    /// Processes a reply of the server. The reply to an allocation holds the buffer's id and its size.
    fn complete(&self, body: &[u8]) {
        let Some(bytes) = lock(&self.pending).take() else { return };
        match number(body, 0) {
            Some(buffer) if buffer != 0 => {
                let replaced = lock(&self.buffers).insert(buffer, bytes);
                self.quota.release(replaced.unwrap_or_default());
            }
            _ => self.quota.release(bytes),
        }
    }

    fn free(&self, buffer: u64) {
        if let Some(bytes) = lock(&self.buffers).remove(&buffer) {
            self.quota.release(bytes);
        }
    }
}

impl Drop for Reservations {
    fn drop(&mut self) {
        let buffers: u64 = lock(&self.buffers).values().sum();
        self.quota.release(buffers + lock(&self.pending).unwrap_or_default());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    sync::lock(mutex)
}

fn number(body: &[u8], offset: usize) -> Option<u64> {
    Some(u64::from_le_bytes(body.get(offset..offset + 8)?.try_into().ok()?))
}

/// Relays one host's commands to the RPC server behind `server`. Ends when either end closes, or when the host sends no
/// heartbeat.
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
    S: AsyncRead + AsyncWrite + Send,
{
    server.set_nodelay(true)?;
    let (from_host, to_host) = tokio::io::split(host);
    let (from_host, monitor) = MonitoredReader::new(from_host);
    let (from_server, to_server) = server.into_split();
    let to_host = tokio::sync::Mutex::new(to_host);
    let reservations = Reservations { quota, pending: Mutex::default(), buffers: Mutex::default() };
    let cached = cache.as_ref().map(|cache| cache.digests().concat()).unwrap_or_default();
    write_frame(&mut *to_host.lock().await, FrameKind::Cached, &[&cached]).await?;
    let mut commands = CommandRelay {
        to_host: &to_host,
        to_server,
        cache,
        reservations: &reservations,
        graphs: GraphCodec::default(),
    };
    let result = tokio::select! {
        result = commands.run(BufReader::with_capacity(READ_BUFFER_BYTES, from_host)) => result,
        result = relay_replies(from_server, &to_host, &reservations) => result,
        result = send_heartbeats(&to_host) => result,
        () = monitor.timed_out() => Err(no_heartbeat()),
    };
    if let Some(cache) = &commands.cache {
        cache.tidy();
    }
    if let Err(error) = &result {
        // A host that does not receive the message detects the end of the connection.
        let message = error.to_string();
        let _ = write_frame(&mut *to_host.lock().await, FrameKind::Error, &[message.as_bytes()]).await;
    }
    result
}

fn no_heartbeat() -> io::Error {
    io::Error::other(format!("no heartbeat from the host for {} s", HEARTBEAT_TIMEOUT.as_secs()))
}

/// Relays the commands of a host to the RPC server.
struct CommandRelay<'a, W> {
    to_host: &'a tokio::sync::Mutex<W>,
    to_server: OwnedWriteHalf,
    cache: Option<Arc<TensorCache>>,
    reservations: &'a Reservations,
    graphs: GraphCodec,
}

impl<W: AsyncWrite + Unpin> CommandRelay<'_, W> {
    async fn run(&mut self, mut from_host: impl AsyncRead + Unpin) -> io::Result<()> {
        while let Some(frame) = Message::read(&mut from_host).await? {
            match frame.frame_kind() {
                Some(FrameKind::Heartbeat) => {}
                Some(FrameKind::Command) => self.command(&frame.body).await?,
                Some(FrameKind::TensorRef) => {
                    let body = self.cached_tensor(&frame.body)?;
                    self.set_tensor(body).await?;
                }
                Some(FrameKind::Tensor) => self.new_tensor(frame.body).await?,
                Some(FrameKind::Graph) => {
                    let body = self.graphs.decode(&frame.body)?;
                    self.forward(command::GRAPH_COMPUTE, body).await?;
                }
                _ => return Err(io::Error::other("the host sent a frame that only workers send")),
            }
        }
        Ok(())
    }

    async fn command(&mut self, bytes: &[u8]) -> io::Result<()> {
        let body = &bytes[HEADER_BYTES.min(bytes.len())..];
        match bytes.first() {
            // The body holds the device and the size: 8 bytes each, or 12 bytes packed.
            Some(&command::ALLOC_BUFFER) => {
                let bytes = number(body, body.len().saturating_sub(8)).unwrap_or(u64::MAX);
                if !self.reservations.begin(bytes)? {
                    let (limit, used) = self.reservations.quota.usage();
                    tracing::warn!(bytes, limit, used, "a pool requests more memory than this worker lends");
                    // The reply that the server sends when an allocation fails.
                    let reply = [16_u64, 0, 0].map(u64::to_le_bytes).concat();
                    write_frame(&mut *self.to_host.lock().await, FrameKind::Reply, &[&reply]).await?;
                    return Ok(());
                }
            }
            Some(&command::FREE_BUFFER) => self.reservations.free(number(body, 0).unwrap_or_default()),
            _ => {}
        }
        self.to_server.write_all(bytes).await
    }

    /// The body of `SET_TENSOR`, with data from the cache.
    fn cached_tensor(&self, body: &[u8]) -> io::Result<Vec<u8>> {
        let missing = || io::Error::other("a tensor is no longer in the cache; the next load sends it again");
        let (header, digest) = body.split_at_checked(TENSOR_HEADER_BYTES).ok_or_else(missing)?;
        let digest: [u8; 32] = digest.try_into().map_err(|_| missing())?;
        let data = self.cache.as_ref().and_then(|cache| cache.get(&digest)).ok_or_else(missing)?;
        Ok([header, &data].concat())
    }

    /// Caches a tensor and forwards it.
    async fn new_tensor(&mut self, body: Vec<u8>) -> io::Result<()> {
        if let (Some(cache), Some(data)) = (self.cache.clone(), body.get(TENSOR_HEADER_BYTES..)) {
            let data = data.to_vec();
            let caching = tokio::task::spawn_blocking(move || cache.put(&data));
            self.set_tensor(body).await?;
            return caching.await.map_err(io::Error::other);
        }
        self.set_tensor(body).await
    }

    async fn forward(&mut self, kind: u8, body: Vec<u8>) -> io::Result<()> {
        self.to_server.write_all(&Message { kind, body }.encode()).await
    }

    async fn set_tensor(&mut self, mut body: Vec<u8>) -> io::Result<()> {
        // The RPC server must not cache tensors itself.
        if let Some(flag) = body.get_mut(CACHE_FLAG_OFFSET) {
            *flag = 0;
        }
        self.forward(command::SET_TENSOR, body).await
    }
}

/// Relays the server's replies to the host. A reply consists of a length and a body.
async fn relay_replies<W: AsyncWrite + Unpin>(
    from_server: OwnedReadHalf,
    to_host: &tokio::sync::Mutex<W>,
    reservations: &Reservations,
) -> io::Result<()> {
    let mut from_server = BufReader::with_capacity(READ_BUFFER_BYTES, from_server);
    loop {
        let length = match from_server.read_u64_le().await {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(io::Error::other("the RPC server ended"));
            }
            Err(error) => return Err(error),
        };
        let mut body = Vec::new();
        (&mut from_server).take(length).read_to_end(&mut body).await?;
        reservations.complete(&body);
        write_frame(&mut *to_host.lock().await, FrameKind::Reply, &[&length.to_le_bytes(), &body]).await?;
    }
}

#[cfg(test)]
mod tests;
