//! A TCP link with a delay, faults, byte counters and a capture.
//!
//! Invariant: without faults each byte arrives in order, and not before its delay has passed.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

/// The maximum number of chunks in flight per direction. A full link makes the sender wait.
const MAX_CHUNKS_IN_FLIGHT: usize = 1024;
/// The maximum size of a chunk.
const MAX_CHUNK_BYTES: usize = 16 << 10;
/// The time between two checks whether a stall has ended or refusing has begun.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// The faults of a link, and its byte counters. The faults can change at any time.
#[derive(Debug, Default)]
pub struct Faults {
    delay_us: AtomicU64,
    stalled: AtomicBool,
    refusing: AtomicBool,
    corrupt_every: AtomicU32,
    truncate_every: AtomicU32,
    reply_chunks: AtomicU32,
    sent_bytes: AtomicU64,
    received_bytes: AtomicU64,
    capture: Mutex<Option<Vec<u8>>>,
}

impl Faults {
    /// Delays each byte by `delay`, in both directions.
    pub fn delay(&self, delay: Duration) {
        self.delay_us.store(u64::try_from(delay.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Stalls the link, or ends the stall. A stalled link delivers no bytes and loses none.
    pub fn stall(&self, stalled: bool) {
        self.stalled.store(stalled, Ordering::Relaxed);
    }

    /// Refuses connections, or accepts them again. Refusing also closes open connections.
    pub fn refuse(&self, refusing: bool) {
        self.refusing.store(refusing, Ordering::Relaxed);
    }

    /// Flips one bit in each `n`-th chunk from the server; 0: in no chunk.
    pub fn corrupt_every(&self, n: u32) {
        self.corrupt_every.store(n, Ordering::Relaxed);
    }

    /// Closes the connection in the middle of each `n`-th chunk from the server; 0: never.
    pub fn truncate_every(&self, n: u32) {
        self.truncate_every.store(n, Ordering::Relaxed);
    }

    /// The numbers of bytes to the server and from the server so far.
    #[must_use]
    pub fn bytes(&self) -> (u64, u64) {
        (self.sent_bytes.load(Ordering::Relaxed), self.received_bytes.load(Ordering::Relaxed))
    }

    /// Starts to keep all bytes of the link.
    pub fn start_capture(&self) {
        *self.lock_capture() = Some(Vec::new());
    }

    /// Ends the capture and returns its bytes.
    #[must_use]
    pub fn end_capture(&self) -> Vec<u8> {
        self.lock_capture().take().unwrap_or_default()
    }

    fn lock_capture(&self) -> MutexGuard<'_, Option<Vec<u8>>> {
        self.capture.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True if the fault hits chunk number `chunk`.
    fn is_due(&self, every: &AtomicU32, chunk: u32) -> bool {
        let every = every.load(Ordering::Relaxed);
        every > 0 && chunk.is_multiple_of(every)
    }
}

/// A link to one server. Dropping the proxy closes its connections.
pub struct Proxy {
    address: SocketAddr,
    faults: Arc<Faults>,
    _serving: JoinSet<()>,
}

impl Proxy {
    /// Listens on `listen` (port 0: a free port) and relays connections to `server`.
    ///
    /// # Errors
    ///
    /// Returns the operating system's error if the port cannot be opened.
    pub async fn start(listen: SocketAddr, server: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let faults = Arc::new(Faults::default());
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, server, faults.clone()));
        Ok(Self { address, faults, _serving: serving })
    }

    /// The address that clients connect to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The faults of the link.
    #[must_use]
    pub fn faults(&self) -> &Arc<Faults> {
        &self.faults
    }
}

async fn serve(listener: TcpListener, server: SocketAddr, faults: Arc<Faults>) {
    // Connections end with the listener.
    let mut connections = JoinSet::new();
    loop {
        let Ok((client, _)) = listener.accept().await else { return };
        while connections.try_join_next().is_some() {}
        if !faults.refusing.load(Ordering::Relaxed) {
            connections.spawn(relay(client, server, faults.clone()));
        }
    }
}

async fn relay(client: TcpStream, server: SocketAddr, faults: Arc<Faults>) {
    // If the server refuses the connection, the client's connection closes too.
    let Ok(server) = TcpStream::connect(server).await else { return };
    if client.set_nodelay(true).is_err() || server.set_nodelay(true).is_err() {
        return;
    }
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let refused = async {
        while !faults.refusing.load(Ordering::Relaxed) {
            sleep(POLL_INTERVAL).await;
        }
    };
    let relaying = async {
        tokio::join!(
            relay_direction(from_client, to_server, &faults, false),
            relay_direction(from_server, to_client, &faults, true)
        );
    };
    tokio::select! {
        () = relaying => {}
        () = refused => {}
    }
}

/// Relays one direction to its end. `is_reply` is true for bytes from the server.
async fn relay_direction(from: OwnedReadHalf, to: OwnedWriteHalf, faults: &Faults, is_reply: bool) {
    let (sender, chunks) = mpsc::channel(MAX_CHUNKS_IN_FLIGHT);
    tokio::join!(read_chunks(from, sender, faults, is_reply), write_chunks(to, chunks, faults, is_reply));
}

async fn read_chunks(
    mut from: OwnedReadHalf,
    chunks: mpsc::Sender<(Instant, Vec<u8>)>,
    faults: &Faults,
    is_reply: bool,
) {
    let counter = if is_reply { &faults.received_bytes } else { &faults.sent_bytes };
    let mut buffer = vec![0; MAX_CHUNK_BYTES];
    while let Ok(count) = from.read(&mut buffer).await {
        if count == 0 {
            return;
        }
        counter.fetch_add(count as u64, Ordering::Relaxed);
        if let Some(capture) = &mut *faults.lock_capture() {
            capture.extend_from_slice(&buffer[..count]);
        }
        let due = Instant::now() + Duration::from_micros(faults.delay_us.load(Ordering::Relaxed));
        if chunks.send((due, buffer[..count].to_vec())).await.is_err() {
            return;
        }
    }
}

async fn write_chunks(
    mut to: OwnedWriteHalf,
    mut chunks: mpsc::Receiver<(Instant, Vec<u8>)>,
    faults: &Faults,
    is_reply: bool,
) {
    while let Some((due, mut chunk)) = chunks.recv().await {
        sleep_until(due).await;
        while faults.stalled.load(Ordering::Relaxed) {
            sleep(POLL_INTERVAL).await;
        }
        if is_reply {
            let number = faults.reply_chunks.fetch_add(1, Ordering::Relaxed);
            if faults.is_due(&faults.corrupt_every, number) {
                let index = fastrand::usize(..chunk.len());
                chunk[index] ^= 1 << fastrand::u8(..7);
            }
            if faults.is_due(&faults.truncate_every, number) {
                let half = chunk.len() / 2;
                let _ = to.write_all(&chunk[..half]).await;
                // Dropping both halves closes the connection.
                chunks.close();
                return;
            }
        }
        if to.write_all(&chunk).await.is_err() {
            return;
        }
    }
}
