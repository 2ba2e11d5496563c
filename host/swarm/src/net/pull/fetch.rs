//! A fetch: requests the missing blocks of one piece from one peer.
//!
//! Invariant: a fetch releases its claimed blocks when it ends, for any reason. At most one block is being
//! written while the next one arrives.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Bytes;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::disk::digest::Digest;
use crate::disk::error::StoreError;
use crate::disk::store::Store;
use crate::net::client::{Client, RequestError};
use crate::net::peer::Peer;
use crate::net::pull::piece_blocks::{Claim, FetchId, PieceBlocks, WriteResult};
use crate::net::pull::report::PullCounters;
use crate::net::rate_limit::RateLimit;
use crate::picker::Fault;

/// Interval at which a fetch without a claim tries to claim blocks again.
const CLAIM_RETRY_INTERVAL: Duration = Duration::from_millis(300);
/// Largest number of reconnects per run of blocks. Each broken connection must have brought data.
const MAX_RECONNECTS: u32 = 8;

/// The parts of a pull that all its fetches share.
pub(crate) struct PullContext {
    pub(crate) client: Client,
    pub(crate) root: Digest,
    pub(crate) store: Arc<Store>,
    pub(crate) stall_timeout: Duration,
    pub(crate) rate_limit: Option<Arc<RateLimit>>,
    pub(crate) counters: PullCounters,
}

/// The end of a fetch.
#[derive(Debug)]
pub(crate) enum FetchEnd {
    /// The piece is complete.
    Complete,
    /// The fetch failed. The duration is the peer's `Retry-After`.
    Fault(Fault, Option<Duration>),
    /// The file cannot be written.
    Store(StoreError),
}

/// Kept bytes of one fetch and of its peer, and the activity of the fetch.
#[derive(Debug, Clone, Default)]
pub(crate) struct ByteCounters {
    pub(crate) fetch: Arc<AtomicU64>,
    pub(crate) peer: Arc<AtomicU64>,
    /// Bytes that the fetch received, also those of incomplete blocks.
    pub(crate) received: Arc<AtomicU64>,
    /// Whether the fetch waits for blocks of other fetches.
    pub(crate) waits: Arc<AtomicBool>,
}

/// The task of one fetch.
pub(crate) struct FetchTask {
    pub(crate) id: FetchId,
    pub(crate) piece: u32,
    pub(crate) peer: Peer,
    pub(crate) blocks: Arc<PieceBlocks>,
    pub(crate) from_end: bool,
    pub(crate) context: Arc<PullContext>,
    pub(crate) counters: ByteCounters,
}

impl Drop for FetchTask {
    fn drop(&mut self) {
        self.blocks.release(self.id);
    }
}

/// The state of a run of blocks while it arrives.
struct RunState {
    /// The arriving block, and the blocks after it.
    blocks: Range<u32>,
    /// The received bytes of the arriving block.
    data: Vec<u8>,
    /// The write of the block before.
    write: Option<PendingWrite>,
    /// Whether the last missing block of the piece was written.
    piece_complete: bool,
}

struct PendingWrite {
    block: u32,
    bytes: u64,
    task: JoinHandle<Result<bool, StoreError>>,
}

impl FetchTask {
    pub(crate) async fn run(self) -> FetchEnd {
        loop {
            match self.blocks.claim(self.id, self.from_end) {
                Claim::Complete => return FetchEnd::Fault(Fault::Cancelled, None),
                Claim::Wait => {
                    self.counters.waits.store(true, Ordering::Relaxed);
                    let _ = timeout(CLAIM_RETRY_INTERVAL, self.blocks.changed()).await;
                    self.counters.waits.store(false, Ordering::Relaxed);
                }
                Claim::Run(blocks) => match self.fetch_run(blocks).await {
                    Ok(true) => return FetchEnd::Complete,
                    Ok(false) => self.blocks.release(self.id),
                    Err(end) => return end,
                },
            }
        }
    }

    /// Fetches the blocks of a run that other fetches do not complete first. True when the piece is complete.
    async fn fetch_run(&self, blocks: Range<u32>) -> Result<bool, FetchEnd> {
        let mut run = RunState { blocks, data: Vec::new(), write: None, piece_complete: false };
        let mut reconnects = 0;
        let ended = loop {
            let before = (run.blocks.start, run.data.len());
            match self.request_run(&mut run).await {
                Err(FetchEnd::Fault(Fault::Lost, _))
                    if reconnects < MAX_RECONNECTS && before != (run.blocks.start, run.data.len()) =>
                {
                    reconnects += 1;
                }
                ended => break ended,
            }
        };
        // A pending write counts, even if the connection failed after its block.
        self.finish_write(&mut run).await?;
        if run.piece_complete { Ok(true) } else { ended.map(|()| false) }
    }

    /// Sends one request for the rest of the run.
    async fn request_run(&self, run: &mut RunState) -> Result<(), FetchEnd> {
        if !self.begin_block(run) {
            return Ok(());
        }
        let mut bytes = self.blocks.byte_range(&run.blocks);
        bytes.start += run.data.len() as u64;
        let PullContext { client, root, stall_timeout, rate_limit, counters, .. } = &*self.context;
        let mut response =
            client.data(&self.peer, *root, bytes, *stall_timeout).await.map_err(end_of_error)?;
        loop {
            let chunk = match timeout(*stall_timeout, response.chunk()).await {
                Err(_) => return Err(FetchEnd::Fault(Fault::Stalled, None)),
                // A body that ends too early counts as a broken connection.
                Ok(Err(_) | Ok(None)) => return Err(FetchEnd::Fault(Fault::Lost, None)),
                Ok(Ok(Some(chunk))) => chunk,
            };
            for counter in [&counters.received_bytes, &*self.counters.received] {
                PullCounters::add(counter, chunk.len() as u64);
            }
            if let Some(rate_limit) = rate_limit {
                rate_limit.acquire(chunk.len() as u64).await;
            }
            if !self.accept_chunk(run, chunk).await? {
                return Ok(());
            }
        }
    }

    /// Splits a chunk into blocks. False when the run needs no further bytes.
    async fn accept_chunk(&self, run: &mut RunState, mut chunk: Bytes) -> Result<bool, FetchEnd> {
        while !chunk.is_empty() {
            if self.blocks.has_block(run.blocks.start) {
                return Ok(false);
            }
            let length = self.blocks.block_length(run.blocks.start);
            if run.data.capacity() < length {
                run.data.reserve_exact(length - run.data.len());
            }
            let part = chunk.split_to(chunk.len().min(length - run.data.len()));
            run.data.extend_from_slice(&part);
            if run.data.len() == length {
                self.start_write(run).await?;
                if !self.begin_block(run) {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Begins the run's next block. False when the run is over, or when another fetch took the block.
    fn begin_block(&self, run: &RunState) -> bool {
        !run.blocks.is_empty() && self.blocks.begin_block(self.id, run.blocks.start)
    }

    /// Starts to write the received block, after the write before has finished.
    async fn start_write(&self, run: &mut RunState) -> Result<(), FetchEnd> {
        self.finish_write(run).await?;
        let (block, data) = (run.blocks.start, std::mem::take(&mut run.data));
        run.blocks.start += 1;
        let (store, piece, bytes) = (self.context.store.clone(), self.piece, data.len() as u64);
        // Hashing and writing would block the async threads, which serve the sockets.
        let task = tokio::task::spawn_blocking(move || store.write(piece, block, &data));
        run.write = Some(PendingWrite { block, bytes, task });
        Ok(())
    }

    /// Waits for the pending write and records its result.
    async fn finish_write(&self, run: &mut RunState) -> Result<(), FetchEnd> {
        let Some(write) = run.write.take() else { return Ok(()) };
        let counters = &self.context.counters;
        match write.task.await {
            Ok(Ok(_)) => {}
            Ok(Err(StoreError::Corrupt { .. })) => {
                PullCounters::add(&counters.corrupt_blocks, 1);
                return Err(FetchEnd::Fault(Fault::Corrupt, None));
            }
            Ok(Err(error)) => return Err(FetchEnd::Store(error)),
            Err(error) => {
                tracing::error!(%error, "the task that writes a block failed");
                return Err(FetchEnd::Fault(Fault::Lost, None));
            }
        }
        let result = self.blocks.complete_block(write.block);
        if result == WriteResult::Duplicate {
            PullCounters::add(&counters.duplicate_blocks, 1);
            return Ok(());
        }
        for counter in [&counters.kept_bytes, &self.counters.fetch, &self.counters.peer] {
            PullCounters::add(counter, write.bytes);
        }
        run.piece_complete |= result == WriteResult::CompletedPiece;
        Ok(())
    }
}

fn end_of_error(error: RequestError) -> FetchEnd {
    match error {
        RequestError::Connection(..) => FetchEnd::Fault(Fault::Lost, None),
        RequestError::Timeout(..) | RequestError::Slow(..) => FetchEnd::Fault(Fault::Stalled, None),
        RequestError::Status(_, _, retry_after) => FetchEnd::Fault(Fault::Refused, retry_after),
        RequestError::AccessDenied(..)
        | RequestError::TokenWithheld(..)
        | RequestError::Untrusted(..)
        | RequestError::NotEncrypted(..)
        | RequestError::InvalidReply(..) => FetchEnd::Fault(Fault::Refused, None),
    }
}
