//! The worker's end: commands go to the RPC server on loopback, its answers come back.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tightwad_core::sync;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use crate::alive::{Alive, beat};
use crate::cache::Cache;
use crate::frame::{CACHE_FLAG, Kind, Message, TENSOR_HEAD, command, write};
use crate::graph::Graphs;
use crate::protocol::PIECE;

/// The memory that a worker lends, shared by all its tunnels.
#[derive(Debug)]
pub struct Allowance {
    memory: u64,
    used: AtomicU64,
}

impl Allowance {
    /// Lends `memory` bytes.
    #[must_use]
    pub fn new(memory: u64) -> Self {
        Self { memory, used: AtomicU64::new(0) }
    }

    /// Bytes lent in all, and those of them in use.
    #[must_use]
    pub fn now(&self) -> (u64, u64) {
        (self.memory, self.used.load(Ordering::Relaxed))
    }

    fn take(&self, bytes: u64) -> bool {
        let fits = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= self.memory);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
    }

    fn give_back(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// What one tunnel took of the memory; it gives everything back.
struct Ledger {
    memory: Arc<Allowance>,
    /// An allocation that the server has not answered yet.
    pending: Mutex<Option<u64>>,
    /// Bytes by the server's name of the buffer.
    buffers: Mutex<HashMap<u64, u64>>,
}

impl Ledger {
    /// False: there is not enough.
    fn ask(&self, bytes: u64) -> io::Result<bool> {
        let mut pending = lock(&self.pending);
        if pending.is_some() {
            // llama.cpp waits for each answer. With two open questions, an answer could belong to either size.
            return Err(io::Error::other("the host asked for a second buffer before the first answer"));
        }
        let taken = self.memory.take(bytes);
        *pending = taken.then_some(bytes);
        Ok(taken)
    }

    /// Notes the server's answer to an allocation, if this is one: the buffer's name, and its size.
    fn answered(&self, body: &[u8]) {
        let Some(bytes) = lock(&self.pending).take() else { return };
        match number(body, 0) {
            Some(buffer) if buffer != 0 => {
                let replaced = lock(&self.buffers).insert(buffer, bytes);
                self.memory.give_back(replaced.unwrap_or_default());
            }
            _ => self.memory.give_back(bytes),
        }
    }

    fn freed(&self, buffer: u64) {
        if let Some(bytes) = lock(&self.buffers).remove(&buffer) {
            self.memory.give_back(bytes);
        }
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        let held: u64 = lock(&self.buffers).values().sum();
        self.memory.give_back(held + lock(&self.pending).unwrap_or_default());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    sync::lock(mutex)
}

fn number(body: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(body.get(at..at + 8)?.try_into().ok()?))
}

/// Carries one host's commands to the RPC server behind `server`, until either end closes or the host is
/// silent for too long.
///
/// # Errors
///
/// What broke; the host is told too, where it can be.
pub async fn serve_tunnel<S>(
    host: S,
    server: TcpStream,
    cache: Option<Arc<Cache>>,
    memory: Arc<Allowance>,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Send,
{
    server.set_nodelay(true)?;
    let (from_host, to_host) = tokio::io::split(host);
    let (from_host, alive) = Alive::new(from_host);
    let (from_server, to_server) = server.into_split();
    let to_host = tokio::sync::Mutex::new(to_host);
    let ledger = Ledger { memory, pending: Mutex::default(), buffers: Mutex::default() };
    let kept = cache.as_ref().map(|cache| cache.digests().concat()).unwrap_or_default();
    write(&mut *to_host.lock().await, Kind::Kept, &[&kept]).await?;
    let mut commands =
        Commands { to_host: &to_host, to_server, cache, ledger: &ledger, graphs: Graphs::default() };
    let done = tokio::select! {
        done = commands.carry(BufReader::with_capacity(PIECE, from_host)) => done,
        done = answers(from_server, &to_host, &ledger) => done,
        done = beat(&to_host) => done,
        () = alive.silence() => Err(io::Error::other("the host is silent")),
    };
    if let Some(cache) = &commands.cache {
        cache.tidy();
    }
    if let Err(error) = &done {
        // A host that cannot be told finds out by itself.
        let _ = write(&mut *to_host.lock().await, Kind::Fault, &[error.to_string().as_bytes()]).await;
    }
    done
}

struct Commands<'a, W> {
    to_host: &'a tokio::sync::Mutex<W>,
    to_server: OwnedWriteHalf,
    cache: Option<Arc<Cache>>,
    ledger: &'a Ledger,
    graphs: Graphs,
}

impl<W: AsyncWrite + Unpin> Commands<'_, W> {
    async fn carry(&mut self, mut from_host: impl AsyncRead + Unpin) -> io::Result<()> {
        while let Some(frame) = Message::read(&mut from_host).await? {
            match frame.frame() {
                Some(Kind::Beat) => {}
                Some(Kind::Command) => self.command(&frame.body).await?,
                Some(Kind::Known) => {
                    let body = self.known(&frame.body)?;
                    self.set_tensor(body).await?;
                }
                Some(Kind::Keep) => self.keep(frame.body).await?,
                Some(Kind::Graph) => {
                    let body = self.graphs.unpack(&frame.body)?;
                    self.pass_on(command::GRAPH_COMPUTE, body).await?;
                }
                _ => return Err(io::Error::other("the host sent what only workers send")),
            }
        }
        Ok(())
    }

    async fn command(&mut self, bytes: &[u8]) -> io::Result<()> {
        let body = &bytes[crate::frame::HEAD.min(bytes.len())..];
        match bytes.first() {
            // The device, then the size, each in 8 bytes or packed into 12.
            Some(&command::ALLOC_BUFFER) => {
                let bytes = number(body, body.len().saturating_sub(8)).unwrap_or(u64::MAX);
                if !self.ledger.ask(bytes)? {
                    let (memory, used) = self.ledger.memory.now();
                    tracing::warn!(bytes, memory, used, "a pool asks for more memory than is lent");
                    // A failed allocation, as the server would answer it.
                    let answer = [16_u64, 0, 0].map(u64::to_le_bytes).concat();
                    write(&mut *self.to_host.lock().await, Kind::Answer, &[&answer]).await?;
                    return Ok(());
                }
            }
            Some(&command::FREE_BUFFER) => self.ledger.freed(number(body, 0).unwrap_or_default()),
            _ => {}
        }
        self.to_server.write_all(bytes).await
    }

    /// The body of `SET_TENSOR`, its data taken from the cache.
    fn known(&self, body: &[u8]) -> io::Result<Vec<u8>> {
        let lost = || io::Error::other("a tensor is no longer in the cache; it will be sent again");
        let (head, digest) = body.split_at_checked(TENSOR_HEAD).ok_or_else(lost)?;
        let digest: [u8; 32] = digest.try_into().map_err(|_| lost())?;
        let data = self.cache.as_ref().and_then(|cache| cache.get(&digest)).ok_or_else(lost)?;
        Ok([head, &data].concat())
    }

    async fn keep(&mut self, body: Vec<u8>) -> io::Result<()> {
        if let (Some(cache), Some(data)) = (self.cache.clone(), body.get(TENSOR_HEAD..)) {
            let data = data.to_vec();
            let kept = tokio::task::spawn_blocking(move || cache.put(&data));
            self.set_tensor(body).await?;
            return kept.await.map_err(io::Error::other);
        }
        self.set_tensor(body).await
    }

    async fn pass_on(&mut self, kind: u8, body: Vec<u8>) -> io::Result<()> {
        self.to_server.write_all(&Message { kind, body }.bytes()).await
    }

    async fn set_tensor(&mut self, mut body: Vec<u8>) -> io::Result<()> {
        // The server itself keeps nothing.
        if let Some(flag) = body.get_mut(CACHE_FLAG) {
            *flag = 0;
        }
        self.pass_on(command::SET_TENSOR, body).await
    }
}

/// Carries the server's answers: a length and a body each.
async fn answers<W: AsyncWrite + Unpin>(
    from_server: OwnedReadHalf,
    to_host: &tokio::sync::Mutex<W>,
    ledger: &Ledger,
) -> io::Result<()> {
    let mut from_server = BufReader::with_capacity(PIECE, from_server);
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
        ledger.answered(&body);
        write(&mut *to_host.lock().await, Kind::Answer, &[&length.to_le_bytes(), &body]).await?;
    }
}

#[cfg(test)]
mod tests;
