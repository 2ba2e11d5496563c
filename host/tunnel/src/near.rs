//! The host's end: a loopback port that llama.cpp takes for the worker's RPC server.

use std::collections::HashSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use reqwest::header::{CONNECTION, UPGRADE as UPGRADE_TO};
use reqwest::{StatusCode, Upgraded};
use sha2::{Digest, Sha256};
use tightwad_core::{Token, innermost};
use tightwad_net::authorized;
use tokio::io::{AsyncWriteExt, BufReader, ReadHalf, WriteHalf};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;

use crate::alive::{Alive, beat};
use crate::frame::{Kind, Message, TENSOR_HEAD, command, write};
use crate::graph::Graphs;
use crate::protocol::{PIECE, UPGRADE};
use crate::sizes;

/// How long a worker may take to open a tunnel: it starts a process.
const OPENING: Duration = Duration::from_secs(15);
/// Smaller tensors are not worth a name.
const SMALLEST: usize = 4 << 10;

/// What went through a tunnel.
#[derive(Debug, Default)]
pub struct Meter {
    /// Bytes to the worker.
    pub sent: AtomicU64,
    /// Bytes from the worker.
    pub received: AtomicU64,
    /// Bytes of tensors that the worker had already.
    pub known: AtomicU64,
}

/// Why a tunnel broke.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelFault(pub String);

/// Carries llama.cpp's RPC to one worker; ends when dropped.
pub struct Tunnel {
    address: SocketAddr,
    meter: Arc<Meter>,
    fault: watch::Receiver<Option<TunnelFault>>,
    _serving: JoinSet<()>,
}

/// A worker at the far end.
#[derive(Debug, Clone)]
pub struct FarEnd {
    /// `http://HOST:PORT`.
    pub url: String,
    /// The token it was started with.
    pub token: Option<Token>,
    /// It computes with its processor, and so answers some questions as this machine would.
    pub on_processor: bool,
}

/// How to reach the worker.
struct Way {
    http: reqwest::Client,
    worker: FarEnd,
    meter: Arc<Meter>,
}

impl Tunnel {
    /// Listens on loopback for llama.cpp; each of its connections becomes one to the worker.
    ///
    /// # Errors
    ///
    /// The operating system's.
    pub async fn open(http: reqwest::Client, worker: FarEnd) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let meter = Arc::new(Meter::default());
        let (broken, fault) = watch::channel(None);
        let way = Arc::new(Way { http, worker, meter: meter.clone() });
        let mut serving = JoinSet::new();
        serving.spawn(accept(listener, way, Arc::new(broken)));
        Ok(Self { address, meter, fault, _serving: serving })
    }

    /// Where llama.cpp finds the worker.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What went through, live.
    #[must_use]
    pub fn meter(&self) -> &Arc<Meter> {
        &self.meter
    }

    /// Why it broke, if it did.
    #[must_use]
    pub fn fault(&self) -> Option<TunnelFault> {
        self.fault.borrow().clone()
    }

    /// Tells when it breaks.
    #[must_use]
    pub fn watch(&self) -> TunnelWatch {
        TunnelWatch(self.fault.clone())
    }
}

/// Tells when a tunnel breaks.
pub struct TunnelWatch(watch::Receiver<Option<TunnelFault>>);

impl TunnelWatch {
    /// Completes when it breaks.
    pub async fn broken(mut self) -> TunnelFault {
        match self.0.wait_for(Option::is_some).await {
            Ok(fault) => fault.clone().unwrap_or_else(|| TunnelFault(String::new())),
            Err(_) => TunnelFault("it was closed".to_owned()),
        }
    }
}

async fn accept(listener: TcpListener, way: Arc<Way>, broken: Arc<watch::Sender<Option<TunnelFault>>>) {
    let mut connections = JoinSet::new();
    while let Ok((llama, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        let (way, broken) = (way.clone(), broken.clone());
        connections.spawn(async move {
            if let Err(error) = way.connection(llama).await {
                broken.send_replace(Some(TunnelFault(error.to_string())));
            }
        });
    }
}

impl Way {
    async fn connection(&self, llama: TcpStream) -> io::Result<()> {
        llama.set_nodelay(true)?;
        let opened = tokio::time::timeout(OPENING, self.upgraded()).await;
        let worker = opened.map_err(|_| io::Error::other("it does not open a tunnel in time"))??;
        let (from_worker, to_worker) = tokio::io::split(worker);
        let (from_worker, alive) = Alive::new(from_worker);
        let mut from_worker = BufReader::with_capacity(PIECE, from_worker);
        let first = tokio::time::timeout(OPENING, Message::read(&mut from_worker)).await;
        let kept = match first.map_err(|_| io::Error::other("it says nothing"))?? {
            Some(frame) if frame.frame() == Some(Kind::Kept) => digests(&frame.body),
            _ => return Err(io::Error::other("it does not begin as a worker does")),
        };
        let (from_llama, to_llama) = llama.into_split();
        let (to_llama, to_worker) = (Mutex::new(to_llama), Mutex::new(to_worker));
        let mut commands = Commands {
            way: self,
            to_worker: &to_worker,
            to_llama: &to_llama,
            kept,
            loading: true,
            graphs: Graphs::default(),
        };
        tokio::select! {
            done = commands.carry(BufReader::with_capacity(PIECE, from_llama)) => done,
            done = self.answers(from_worker, &to_llama) => done,
            done = beat(&to_worker) => done,
            () = alive.silence() => Err(io::Error::other("it is silent")),
        }
    }

    async fn upgraded(&self) -> io::Result<Upgraded> {
        let request = self.http.get(format!("{}/v1/worker/rpc", self.worker.url));
        let request = request.header(CONNECTION, "upgrade").header(UPGRADE_TO, UPGRADE);
        let request = authorized(request, self.worker.token.as_ref());
        let response = request.send().await.map_err(|error| io::Error::other(innermost(&error)))?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let status = response.status();
            let said: serde_json::Value = response.json().await.unwrap_or_default();
            let message = said["error"]["message"].as_str().unwrap_or("it did not say why");
            return Err(io::Error::other(format!("{status}: {message}")));
        }
        response.upgrade().await.map_err(|error| io::Error::other(innermost(&error)))
    }

    async fn answers(
        &self,
        mut from_worker: BufReader<Alive<ReadHalf<Upgraded>>>,
        to_llama: &Mutex<OwnedWriteHalf>,
    ) -> io::Result<()> {
        while let Some(frame) = Message::read(&mut from_worker).await? {
            self.meter.received.fetch_add(frame.bytes_on_wire(), Ordering::Relaxed);
            match frame.frame() {
                Some(Kind::Beat) => {}
                Some(Kind::Answer) => to_llama.lock().await.write_all(&frame.body).await?,
                Some(Kind::Fault) => {
                    return Err(io::Error::other(String::from_utf8_lossy(&frame.body).into_owned()));
                }
                _ => return Err(io::Error::other("it sent what only hosts send")),
            }
        }
        Err(io::Error::other("it closed the connection"))
    }
}

fn digests(bytes: &[u8]) -> HashSet<[u8; 32]> {
    bytes.chunks_exact(32).filter_map(|digest| digest.try_into().ok()).collect()
}

struct Commands<'a> {
    way: &'a Way,
    to_worker: &'a Mutex<WriteHalf<Upgraded>>,
    to_llama: &'a Mutex<OwnedWriteHalf>,
    /// What the worker keeps.
    kept: HashSet<[u8; 32]>,
    /// Until the first pass, tensors are weights; later ones are never seen again.
    loading: bool,
    graphs: Graphs,
}

impl Commands<'_> {
    async fn carry(&mut self, mut from_llama: BufReader<OwnedReadHalf>) -> io::Result<()> {
        // The end of llama.cpp's connection is the end of this one, and no fault of the worker's.
        while let Ok(Some(message)) = Message::read(&mut from_llama).await {
            self.command(message).await?;
        }
        Ok(())
    }

    async fn command(&mut self, message: Message) -> io::Result<()> {
        match message.kind {
            command::SET_TENSOR if self.loading && message.body.len() >= TENSOR_HEAD + SMALLEST => {
                return self.tensor(&message.body).await;
            }
            // llama.cpp's own cache knows large tensors by 64 bits that anyone can forge: it is told
            // that the worker has none, and sends them.
            command::SET_TENSOR_HASH => {
                let answer = [&1_u64.to_le_bytes()[..], &[0]].concat();
                return self.to_llama.lock().await.write_all(&answer).await;
            }
            command::GRAPH_COMPUTE => {
                self.loading = false;
                let packed = self.graphs.pack(message.body)?;
                return self.send(Kind::Graph, &[&packed]).await;
            }
            command::GRAPH_RECOMPUTE => self.loading = false,
            command::GET_ALLOC_SIZE if self.way.worker.on_processor => {
                if let Some(answer) = sizes::on_processor(&message.body) {
                    return self.to_llama.lock().await.write_all(&answer).await;
                }
            }
            _ => {}
        }
        self.send(Kind::Command, &[&message.bytes()]).await
    }

    async fn tensor(&mut self, body: &[u8]) -> io::Result<()> {
        let (head, data) = body.split_at(TENSOR_HEAD);
        let digest: [u8; 32] = Sha256::digest(data).into();
        if self.kept.contains(&digest) {
            self.way.meter.known.fetch_add(data.len() as u64, Ordering::Relaxed);
            return self.send(Kind::Known, &[head, &digest]).await;
        }
        self.send(Kind::Keep, &[body]).await
    }

    async fn send(&self, kind: Kind, parts: &[&[u8]]) -> io::Result<()> {
        let bytes = write(&mut *self.to_worker.lock().await, kind, parts).await?;
        self.way.meter.sent.fetch_add(bytes as u64, Ordering::Relaxed);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
