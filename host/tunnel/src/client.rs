//! The host's end of a tunnel: a loopback port that llama.cpp uses as the worker's RPC server.

use std::collections::HashSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use reqwest::header::{CONNECTION, UPGRADE};
use reqwest::{Method, Response, StatusCode, Upgraded};
use sha2::{Digest, Sha256};
use tightwad_core::{printable, root_cause};
use tightwad_net::RemoteMachine;
use tokio::io::{AsyncRead, AsyncWriteExt, BufReader, ReadHalf, WriteHalf};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, watch};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{sleep, timeout};

use crate::alloc_size;
use crate::frame::{FrameKind, FrameWriter};
use crate::graph::GraphCodec;
use crate::heartbeat::{MonitoredReader, send_heartbeats};
use crate::loopback::verify_client;
use crate::protocol::{
    HEARTBEAT_TIMEOUT, MAX_CACHED_FRAME_BYTES, MAX_ERROR_FRAME_BYTES, MAX_REASON_BYTES,
    MAX_REPLY_FRAME_BYTES, MAX_TENSOR_BYTES, READ_BUFFER_BYTES, UPGRADE_PROTOCOL,
};
use crate::rpc::{HEADER_BYTES, Header, RpcCommand, TENSOR_HEADER_BYTES, read_body};

/// The maximum time until a worker opens a tunnel. The worker starts a process for it.
const OPEN_TIMEOUT: Duration = Duration::from_secs(15);
/// The time until the next attempt after `accept` has failed.
const ACCEPT_RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// The minimum size of the tensors that the worker caches. For smaller ones a digest saves too little.
const MIN_CACHED_TENSOR_BYTES: usize = 4 << 10;

/// The traffic of a tunnel.
#[derive(Debug, Default)]
pub struct TrafficStats {
    /// Bytes to the worker.
    pub sent_bytes: AtomicU64,
    /// Bytes from the worker.
    pub received_bytes: AtomicU64,
    /// Bytes of tensors that the worker had cached, and that were not sent.
    pub cached_bytes: AtomicU64,
}

/// The failure of a tunnel, as a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelError(pub String);

/// Carries llama.cpp's RPC to one worker. Dropping the tunnel closes it.
pub struct Tunnel {
    address: SocketAddr,
    stats: Arc<TrafficStats>,
    error: watch::Receiver<Option<TunnelError>>,
    _serving: JoinSet<()>,
}

/// The worker at the other end of a tunnel.
#[derive(Debug, Clone)]
pub struct WorkerEndpoint {
    /// The machine.
    pub machine: RemoteMachine,
    /// True when the worker computes on its CPU. The host then calculates some of its replies.
    pub uses_cpu: bool,
}

/// Opens connections to the worker.
struct Connector {
    worker: WorkerEndpoint,
    stats: Arc<TrafficStats>,
}

impl Tunnel {
    /// Listens on loopback for llama.cpp. For each of its connections the tunnel opens one to the worker.
    ///
    /// # Errors
    ///
    /// Returns the operating system's error if no port can be opened.
    pub async fn open(worker: WorkerEndpoint) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let stats = Arc::new(TrafficStats::default());
        let (error_sender, error) = watch::channel(None);
        let connector = Arc::new(Connector { worker, stats: stats.clone() });
        let mut serving = JoinSet::new();
        serving.spawn(accept(listener, connector, Arc::new(error_sender)));
        Ok(Self { address, stats, error, _serving: serving })
    }

    /// The loopback address that llama.cpp connects to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The traffic so far. The counts change while the tunnel works.
    #[must_use]
    pub fn stats(&self) -> &Arc<TrafficStats> {
        &self.stats
    }

    /// The error of a tunnel that failed.
    #[must_use]
    pub fn error(&self) -> Option<TunnelError> {
        self.error.borrow().clone()
    }

    /// Returns a watch for the failure of this tunnel.
    #[must_use]
    pub fn watch(&self) -> TunnelWatch {
        TunnelWatch(self.error.clone())
    }
}

/// Waits for the failure of a tunnel.
pub struct TunnelWatch(watch::Receiver<Option<TunnelError>>);

impl TunnelWatch {
    /// Completes when the tunnel fails or closes.
    pub async fn wait_for_failure(mut self) -> TunnelError {
        match self.0.wait_for(Option::is_some).await {
            Ok(error) => error.clone().unwrap_or_else(|| TunnelError(String::new())),
            Err(_) => TunnelError("the tunnel was closed".to_owned()),
        }
    }
}

async fn accept(
    listener: TcpListener,
    connector: Arc<Connector>,
    error_sender: Arc<watch::Sender<Option<TunnelError>>>,
) {
    let mut connections = JoinSet::new();
    loop {
        let llama = match listener.accept().await {
            Ok((llama, _)) => llama,
            Err(error) => {
                // The usual reason is a lack of descriptors, which passes.
                tracing::warn!(%error, "a tunnel cannot accept a connection of llama.cpp");
                sleep(ACCEPT_RETRY_INTERVAL).await;
                continue;
            }
        };
        while connections.try_join_next().is_some() {}
        let (connector, error_sender) = (connector.clone(), error_sender.clone());
        connections.spawn(async move {
            if let Err(error) = verify_user(&llama).await {
                // A stranger must not end the tunnel of llama.cpp.
                return tracing::warn!(%error, "a tunnel serves only processes of its own user");
            }
            if let Err(error) = connector.relay(llama).await {
                error_sender.send_replace(Some(TunnelError(error.to_string())));
            }
        });
    }
}

/// Checks that a connection to the loopback port belongs to the user of this process.
async fn verify_user(llama: &TcpStream) -> io::Result<()> {
    verify_client(llama.peer_addr()?, llama.local_addr()?).await
}

impl Connector {
    /// Relays one connection of llama.cpp to the worker, until either side closes it.
    async fn relay(&self, llama: TcpStream) -> io::Result<()> {
        llama.set_nodelay(true)?;
        let opened = timeout(OPEN_TIMEOUT, self.connect()).await;
        let worker = opened.map_err(|_| timed_out("the worker did not open a tunnel", OPEN_TIMEOUT))??;
        let (from_worker, to_worker) = tokio::io::split(worker);
        let (from_worker, monitor) = MonitoredReader::new(from_worker);
        let mut from_worker = BufReader::with_capacity(READ_BUFFER_BYTES, from_worker);
        let cached = timeout(OPEN_TIMEOUT, read_cached(&mut from_worker)).await;
        let cached = cached.map_err(|_| timed_out("the worker sent no frame", OPEN_TIMEOUT))??;
        let (from_llama, to_llama) = llama.into_split();
        let (to_llama, to_worker) = (Mutex::new(to_llama), Arc::new(Mutex::new(FrameWriter::new(to_worker))));
        // A task of its own: heartbeats continue while the relays compute digests and wait for llama.cpp.
        let mut heartbeats = JoinSet::new();
        let writer = to_worker.clone();
        heartbeats.spawn(async move { send_heartbeats(&writer).await });
        let mut commands = CommandRelay {
            connector: self,
            to_worker: &to_worker,
            to_llama: &to_llama,
            cached,
            loading: true,
            graphs: GraphCodec::default(),
        };
        tokio::select! {
            result = commands.run(BufReader::with_capacity(READ_BUFFER_BYTES, from_llama)) => result,
            result = self.relay_replies(from_worker, &to_llama) => result,
            Some(result) = heartbeats.join_next() => result.map_err(io::Error::other).flatten(),
            () = monitor.timed_out() => Err(timed_out("the worker sent no heartbeat", HEARTBEAT_TIMEOUT)),
        }
    }

    /// Opens a connection to the worker and upgrades it to a tunnel.
    async fn connect(&self) -> io::Result<Upgraded> {
        let request = self.worker.machine.request(Method::GET, "/v1/worker/rpc");
        let request = request.header(CONNECTION, "upgrade").header(UPGRADE, UPGRADE_PROTOCOL);
        let response = request.send().await.map_err(|error| io::Error::other(root_cause(&error)))?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let status = response.status();
            return Err(io::Error::other(format!("{status}: {}", refusal(response).await)));
        }
        response.upgrade().await.map_err(|error| io::Error::other(root_cause(&error)))
    }

    async fn relay_replies(
        &self,
        mut from_worker: BufReader<MonitoredReader<ReadHalf<Upgraded>>>,
        to_llama: &Mutex<OwnedWriteHalf>,
    ) -> io::Result<()> {
        while let Some(header) = Header::read(&mut from_worker).await? {
            let bytes = header.body_bytes;
            self.stats.received_bytes.fetch_add(HEADER_BYTES as u64 + bytes, Ordering::Relaxed);
            match FrameKind::of(header) {
                Some(FrameKind::Heartbeat) => FrameKind::Heartbeat.check_bytes(bytes, 0..=0)?,
                Some(FrameKind::Reply) => {
                    FrameKind::Reply.check_bytes(bytes, 0..=MAX_REPLY_FRAME_BYTES)?;
                    let reply = read_body(&mut from_worker, bytes).await?;
                    to_llama.lock().await.write_all(&reply).await?;
                }
                Some(FrameKind::Error) => {
                    FrameKind::Error.check_bytes(bytes, 0..=MAX_ERROR_FRAME_BYTES)?;
                    let reason = read_body(&mut from_worker, bytes).await?;
                    let reason = printable(&String::from_utf8_lossy(&reason), MAX_REASON_BYTES);
                    return Err(io::Error::other(reason));
                }
                _ => return Err(io::Error::other("the worker sent a frame that only hosts send")),
            }
        }
        Err(io::Error::other("the worker closed the connection"))
    }
}

/// The reason in the body of a response that refuses a tunnel.
async fn refusal(mut response: Response) -> String {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await
        && (body.len() + chunk.len()) as u64 <= MAX_ERROR_FRAME_BYTES
    {
        body.extend_from_slice(&chunk);
    }
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    printable(body["error"]["message"].as_str().unwrap_or("no reason given"), MAX_REASON_BYTES)
}

fn timed_out(event: &str, limit: Duration) -> io::Error {
    io::Error::other(format!("{event} within {} s", limit.as_secs()))
}

/// Reads the first frame of a worker after heartbeats: the SHA-256 of each tensor that the worker has cached.
async fn read_cached(from: &mut (impl AsyncRead + Unpin)) -> io::Result<HashSet<[u8; 32]>> {
    while let Some(header) = Header::read(from).await? {
        match FrameKind::of(header) {
            Some(FrameKind::Heartbeat) => FrameKind::Heartbeat.check_bytes(header.body_bytes, 0..=0)?,
            Some(FrameKind::Cached) => {
                FrameKind::Cached.check_bytes(header.body_bytes, 0..=MAX_CACHED_FRAME_BYTES)?;
                let digests = read_body(from, header.body_bytes).await?;
                return Ok(digests.as_chunks().0.iter().copied().collect());
            }
            _ => break,
        }
    }
    Err(io::Error::other("the worker's first frame is not its list of cached tensors"))
}

/// Relays the commands of llama.cpp to the worker.
struct CommandRelay<'a> {
    connector: &'a Connector,
    to_worker: &'a Mutex<FrameWriter<WriteHalf<Upgraded>>>,
    to_llama: &'a Mutex<OwnedWriteHalf>,
    /// The SHA-256 of each tensor that the worker has cached.
    cached: HashSet<[u8; 32]>,
    /// True before the first pass, while tensors are weights. Later tensors are inputs, which do not repeat.
    loading: bool,
    graphs: GraphCodec,
}

impl CommandRelay<'_> {
    async fn run(&mut self, mut from_llama: BufReader<OwnedReadHalf>) -> io::Result<()> {
        // When llama.cpp closes its connection, the tunnel ends without an error.
        while let Ok(Some(header)) = Header::read(&mut from_llama).await {
            let command = RpcCommand::from_number(header.number)?;
            command.check_body(header.body_bytes, MAX_TENSOR_BYTES)?;
            let Ok(body) = read_body(&mut from_llama, header.body_bytes).await else { return Ok(()) };
            self.command(command, body).await?;
        }
        Ok(())
    }

    async fn command(&mut self, command: RpcCommand, body: Vec<u8>) -> io::Result<()> {
        match command {
            RpcCommand::SetTensor
                if self.loading && body.len() >= TENSOR_HEADER_BYTES + MIN_CACHED_TENSOR_BYTES =>
            {
                return self.tensor(body).await;
            }
            // llama.cpp's own cache identifies large tensors by a hash of 64 bits, which can be forged. The reply
            // denies that the worker has the tensor, and llama.cpp then sends the tensor.
            RpcCommand::SetTensorHash => {
                let reply = [&1_u64.to_le_bytes()[..], &[0]].concat();
                return self.to_llama.lock().await.write_all(&reply).await;
            }
            RpcCommand::GraphCompute => {
                self.loading = false;
                let encoded = self.graphs.encode(body)?;
                return self.send(FrameKind::Graph, &[&encoded]).await;
            }
            RpcCommand::GraphRecompute => self.loading = false,
            RpcCommand::GetAllocSize if self.connector.worker.uses_cpu => {
                if let Some(reply) = alloc_size::cpu_reply(&body) {
                    return self.to_llama.lock().await.write_all(&reply).await;
                }
            }
            _ => {}
        }
        let header = Header { number: command as u8, body_bytes: body.len() as u64 };
        self.send(FrameKind::Command, &[&header.encode(), &body]).await
    }

    /// Sends a tensor, or its digest if the worker has cached the tensor.
    async fn tensor(&mut self, body: Vec<u8>) -> io::Result<()> {
        let hashing = spawn_blocking(move || {
            let digest: [u8; 32] = Sha256::digest(&body[TENSOR_HEADER_BYTES..]).into();
            (digest, body)
        });
        let (digest, body) = hashing.await.map_err(io::Error::other)?;
        if self.cached.contains(&digest) {
            let data_bytes = (body.len() - TENSOR_HEADER_BYTES) as u64;
            self.connector.stats.cached_bytes.fetch_add(data_bytes, Ordering::Relaxed);
            return self.send(FrameKind::TensorRef, &[&body[..TENSOR_HEADER_BYTES], &digest]).await;
        }
        self.send(FrameKind::Tensor, &[&body]).await
    }

    async fn send(&self, kind: FrameKind, parts: &[&[u8]]) -> io::Result<()> {
        let bytes = self.to_worker.lock().await.write(kind, parts).await?;
        self.connector.stats.sent_bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
