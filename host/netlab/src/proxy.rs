//! A TCP link with delay, faults and a meter.
//!
//! Invariant: without faults every byte arrives, in order, no earlier than the delay after it was sent.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

/// Pieces on their way in one direction; a fuller link makes the sender wait.
const ON_THE_WAY: usize = 1024;
/// Largest piece.
const PIECE: usize = 16 << 10;
/// How often a cut link looks whether it is whole again.
const LOOK: Duration = Duration::from_millis(5);

/// What goes wrong on a link; may be changed at any time.
#[derive(Debug, Default)]
pub struct Faults {
    delay_us: AtomicU64,
    cut: AtomicBool,
    refuse: AtomicBool,
    garble_every: AtomicU32,
    truncate_every: AtomicU32,
    pieces: AtomicU32,
    up: AtomicU64,
    down: AtomicU64,
}

impl Faults {
    /// Every byte takes this long, each way.
    pub fn delay(&self, delay: Duration) {
        self.delay_us.store(u64::try_from(delay.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// While cut, nothing arrives; nothing is lost either.
    pub fn cut(&self, cut: bool) {
        self.cut.store(cut, Ordering::Relaxed);
    }

    /// While refusing, connections are closed as soon as they come, and those there are break.
    pub fn refuse(&self, refuse: bool) {
        self.refuse.store(refuse, Ordering::Relaxed);
    }

    /// Changes one bit in every n-th piece of what comes back; 0: in none.
    pub fn garble_every(&self, n: u32) {
        self.garble_every.store(n, Ordering::Relaxed);
    }

    /// Breaks the connection in the middle of every n-th piece of what comes back; 0: never.
    pub fn truncate_every(&self, n: u32) {
        self.truncate_every.store(n, Ordering::Relaxed);
    }

    /// Bytes that went through so far, there and back.
    #[must_use]
    pub fn bytes(&self) -> (u64, u64) {
        (self.up.load(Ordering::Relaxed), self.down.load(Ordering::Relaxed))
    }

    fn is_due(&self, every: &AtomicU32, piece: u32) -> bool {
        let every = every.load(Ordering::Relaxed);
        every > 0 && piece.is_multiple_of(every)
    }
}

/// A link to one address. It ends when dropped.
pub struct Proxy {
    address: SocketAddr,
    faults: Arc<Faults>,
    _serving: JoinSet<()>,
}

impl Proxy {
    /// Listens on `listen` (port 0: a free one) and carries connections to `to`.
    ///
    /// # Errors
    ///
    /// The listener's.
    pub async fn start(listen: SocketAddr, to: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let faults = Arc::new(Faults::default());
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, to, faults.clone()));
        Ok(Self { address, faults, _serving: serving })
    }

    /// Where the link begins.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What goes wrong on it.
    #[must_use]
    pub fn faults(&self) -> &Arc<Faults> {
        &self.faults
    }
}

async fn serve(listener: TcpListener, to: SocketAddr, faults: Arc<Faults>) {
    // Connections end with the listener.
    let mut connections = JoinSet::new();
    loop {
        let Ok((near, _)) = listener.accept().await else { return };
        while connections.try_join_next().is_some() {}
        if !faults.refuse.load(Ordering::Relaxed) {
            connections.spawn(connection(near, to, faults.clone()));
        }
    }
}

async fn connection(near: TcpStream, to: SocketAddr, faults: Arc<Faults>) {
    // A machine that is not there refuses, and so does the link to it.
    let Ok(far) = TcpStream::connect(to).await else { return };
    if near.set_nodelay(true).is_err() || far.set_nodelay(true).is_err() {
        return;
    }
    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
    let refused = async {
        while !faults.refuse.load(Ordering::Relaxed) {
            sleep(LOOK).await;
        }
    };
    let both = async {
        tokio::join!(carry(near_in, far_out, &faults, false), carry(far_in, near_out, &faults, true));
    };
    tokio::select! {
        () = both => {}
        () = refused => {}
    }
}

/// Carries one direction to its end; `back`: from the far end.
async fn carry(from: OwnedReadHalf, to: OwnedWriteHalf, faults: &Faults, back: bool) {
    let (sender, pieces) = mpsc::channel(ON_THE_WAY);
    tokio::join!(take(from, sender, faults, back), give(to, pieces, faults, back));
}

async fn take(
    mut from: OwnedReadHalf,
    pieces: mpsc::Sender<(Instant, Vec<u8>)>,
    faults: &Faults,
    back: bool,
) {
    let meter = if back { &faults.down } else { &faults.up };
    let mut buffer = vec![0; PIECE];
    while let Ok(read) = from.read(&mut buffer).await {
        if read == 0 {
            return;
        }
        meter.fetch_add(read as u64, Ordering::Relaxed);
        let due = Instant::now() + Duration::from_micros(faults.delay_us.load(Ordering::Relaxed));
        if pieces.send((due, buffer[..read].to_vec())).await.is_err() {
            return;
        }
    }
}

async fn give(
    mut to: OwnedWriteHalf,
    mut pieces: mpsc::Receiver<(Instant, Vec<u8>)>,
    faults: &Faults,
    back: bool,
) {
    while let Some((due, mut piece)) = pieces.recv().await {
        sleep_until(due).await;
        while faults.cut.load(Ordering::Relaxed) {
            sleep(LOOK).await;
        }
        if back {
            let number = faults.pieces.fetch_add(1, Ordering::Relaxed);
            if faults.is_due(&faults.garble_every, number) {
                let at = fastrand::usize(..piece.len());
                piece[at] ^= 1 << fastrand::u8(..7);
            }
            if faults.is_due(&faults.truncate_every, number) {
                let half = piece.len() / 2;
                let _ = to.write_all(&piece[..half]).await;
                // Dropping both halves breaks the connection.
                pieces.close();
                return;
            }
        }
        if to.write_all(&piece).await.is_err() {
            return;
        }
    }
}
