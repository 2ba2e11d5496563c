//! One fetch: the blocks of a piece from one peer, as long as they are missing.
//!
//! Invariant: what the fetch claims it gives back when it ends, however it ends. At most one block is being
//! written while the next one arrives.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use axum::body::Bytes;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::disk::digest::Digest;
use crate::disk::error::StoreError;
use crate::disk::store::Store;
use crate::net::client::{AskError, Client};
use crate::net::limit::RateLimit;
use crate::net::peer::Peer;
use crate::net::pull::report::Tally;
use crate::net::pull::work::{Claim, FetchId, Settled, Work};
use crate::picker::Fault;

/// How long an idle fetch waits before it looks again.
const LOOK: Duration = Duration::from_millis(300);
/// How often one run of blocks may be taken up again after the connection broke; as long as each connection
/// brought something.
const BREAKS: u32 = 8;

/// What all fetches of a pull share.
pub(crate) struct Ground {
    pub(crate) client: Client,
    pub(crate) root: Digest,
    pub(crate) store: Arc<Store>,
    pub(crate) stall: Duration,
    pub(crate) limit: Option<Arc<RateLimit>>,
    pub(crate) tally: Tally,
}

/// How a fetch ended.
#[derive(Debug)]
pub(crate) enum End {
    /// The piece is complete.
    Complete,
    /// It is not, because of this; the peer asks for a pause, or does not.
    Fault(Fault, Option<Duration>),
    /// The file cannot be written.
    Store(StoreError),
}

/// Bytes that one fetch, and its peer, brought.
#[derive(Debug, Clone, Default)]
pub(crate) struct Kept {
    pub(crate) fetch: Arc<AtomicU64>,
    pub(crate) peer: Arc<AtomicU64>,
}

/// One fetch.
pub(crate) struct Fetching {
    pub(crate) id: FetchId,
    pub(crate) piece: u32,
    pub(crate) peer: Peer,
    pub(crate) work: Arc<Work>,
    pub(crate) from_end: bool,
    pub(crate) ground: Arc<Ground>,
    pub(crate) kept: Kept,
}

impl Drop for Fetching {
    fn drop(&mut self) {
        self.work.release(self.id);
    }
}

/// Where a run of blocks is.
struct Arrival {
    /// The block that arrives, and the end of the run.
    blocks: Range<u32>,
    /// What came of the block.
    data: Vec<u8>,
    /// The block before, on its way to the disk.
    writing: Option<Writing>,
    /// True when the last missing block of the piece was written.
    complete: bool,
}

struct Writing {
    block: u32,
    bytes: u64,
    done: JoinHandle<Result<bool, StoreError>>,
}

impl Fetching {
    pub(crate) async fn run(self) -> End {
        loop {
            match self.work.claim(self.id, self.from_end) {
                Claim::Over => return End::Fault(Fault::Cancelled, None),
                Claim::Wait => {
                    let _ = timeout(LOOK, self.work.changed()).await;
                }
                Claim::Run(blocks) => match self.bring(blocks).await {
                    Ok(true) => return End::Complete,
                    Ok(false) => self.work.release(self.id),
                    Err(end) => return end,
                },
            }
        }
    }

    /// Brings `blocks`, or those of them that nobody else brought meanwhile. True: the piece is complete.
    async fn bring(&self, blocks: Range<u32>) -> Result<bool, End> {
        let mut arrival = Arrival { blocks, data: Vec::new(), writing: None, complete: false };
        let mut breaks = 0;
        let ended = loop {
            let before = (arrival.blocks.start, arrival.data.len());
            match self.receive(&mut arrival).await {
                Err(End::Fault(Fault::Lost, _))
                    if breaks < BREAKS && before != (arrival.blocks.start, arrival.data.len()) =>
                {
                    breaks += 1;
                }
                ended => break ended,
            }
        };
        // What is being written counts, whatever came after it.
        self.written(&mut arrival).await?;
        if arrival.complete { Ok(true) } else { ended.map(|()| false) }
    }

    /// One request, from where the run is to its end.
    async fn receive(&self, arrival: &mut Arrival) -> Result<(), End> {
        if !self.wanted(arrival) {
            return Ok(());
        }
        let mut bytes = self.work.bytes(&arrival.blocks);
        bytes.start += arrival.data.len() as u64;
        let Ground { client, root, stall, limit, tally, .. } = &*self.ground;
        let mut response = client.data(&self.peer, *root, bytes, *stall).await.map_err(fault)?;
        loop {
            let chunk = match timeout(*stall, response.chunk()).await {
                Err(_) => return Err(End::Fault(Fault::Stalled, None)),
                // A peer that ends too early is as good as a broken connection.
                Ok(Err(_) | Ok(None)) => return Err(End::Fault(Fault::Lost, None)),
                Ok(Ok(Some(chunk))) => chunk,
            };
            Tally::add(&tally.came, chunk.len() as u64);
            if let Some(limit) = limit {
                limit.take(chunk.len() as u64).await;
            }
            if !self.feed(arrival, chunk).await? {
                return Ok(());
            }
        }
    }

    /// Takes what came apart into blocks. False when nothing more is needed.
    async fn feed(&self, arrival: &mut Arrival, mut chunk: Bytes) -> Result<bool, End> {
        while !chunk.is_empty() {
            if self.work.had(arrival.blocks.start) {
                return Ok(false);
            }
            let length = self.work.length(arrival.blocks.start);
            if arrival.data.capacity() < length {
                arrival.data.reserve_exact(length - arrival.data.len());
            }
            let part = chunk.split_to(chunk.len().min(length - arrival.data.len()));
            arrival.data.extend_from_slice(&part);
            if arrival.data.len() == length {
                self.write(arrival).await?;
                if !self.wanted(arrival) {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// True when a block is left in the run, and is still this fetch's to bring.
    fn wanted(&self, arrival: &Arrival) -> bool {
        !arrival.blocks.is_empty() && self.work.begin(self.id, arrival.blocks.start)
    }

    /// Sends the block that is whole to the disk, when the one before is there.
    async fn write(&self, arrival: &mut Arrival) -> Result<(), End> {
        self.written(arrival).await?;
        let (block, data) = (arrival.blocks.start, std::mem::take(&mut arrival.data));
        arrival.blocks.start += 1;
        let (store, piece, bytes) = (self.ground.store.clone(), self.piece, data.len() as u64);
        // Hashing and writing take too long for the threads that serve sockets.
        let done = tokio::task::spawn_blocking(move || store.write(piece, block, &data));
        arrival.writing = Some(Writing { block, bytes, done });
        Ok(())
    }

    /// Waits for the block that is on its way to the disk.
    async fn written(&self, arrival: &mut Arrival) -> Result<(), End> {
        let Some(writing) = arrival.writing.take() else { return Ok(()) };
        let tally = &self.ground.tally;
        match writing.done.await {
            Ok(Ok(_)) => {}
            Ok(Err(StoreError::Corrupt { .. })) => {
                Tally::add(&tally.corrupt, 1);
                return Err(End::Fault(Fault::Corrupt, None));
            }
            Ok(Err(error)) => return Err(End::Store(error)),
            Err(error) => {
                tracing::error!(%error, "writing a block failed");
                return Err(End::Fault(Fault::Lost, None));
            }
        }
        let settled = self.work.settle(writing.block);
        if settled == Settled::Twice {
            Tally::add(&tally.duplicate, 1);
            return Ok(());
        }
        for counter in [&tally.kept, &self.kept.fetch, &self.kept.peer] {
            Tally::add(counter, writing.bytes);
        }
        arrival.complete |= settled == Settled::Last;
        Ok(())
    }
}

fn fault(error: AskError) -> End {
    match error {
        AskError::Silent(..) => End::Fault(Fault::Lost, None),
        AskError::Slow(..) => End::Fault(Fault::Stalled, None),
        AskError::Refused(_, _, pause) => End::Fault(Fault::Refused, pause),
        AskError::Shut(..) | AskError::Nonsense(..) => End::Fault(Fault::Refused, None),
    }
}
