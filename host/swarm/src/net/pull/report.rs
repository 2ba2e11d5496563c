//! Reports of a pull: its progress, its summary and its errors.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::disk::error::StoreError;
use crate::net::peer::Peer;

/// The progress of a running pull.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Progress {
    /// Checked bytes of the wanted pieces on this machine.
    pub have_bytes: u64,
    /// Bytes of the wanted pieces.
    pub wanted_bytes: u64,
    /// Wanted pieces that are complete.
    pub have_pieces: u32,
    /// Wanted pieces.
    pub wanted_pieces: u32,
    /// The recent download rate, useless bytes included.
    pub bytes_per_second: f64,
    /// Connected peers.
    pub peers: u32,
    /// Running fetches.
    pub fetches: u32,
}

/// The result of a pull.
#[derive(Debug, Clone, Default)]
pub struct PullSummary {
    /// Received bytes that the store kept.
    pub kept_bytes: u64,
    /// Kept bytes of each peer; only peers that sent some.
    pub bytes_by_peer: Vec<(Peer, u64)>,
    /// Received bytes that the store did not keep: corrupt, incomplete or duplicate blocks.
    pub wasted_bytes: u64,
    /// Blocks that did not match the manifest.
    pub corrupt_blocks: u64,
    /// Blocks that arrived twice.
    pub duplicate_blocks: u64,
    /// Peers that sent corrupt blocks.
    pub banned_peers: Vec<Peer>,
    /// The error of a picker that failed. After it, the pull fetched the pieces in order.
    pub picker_error: Option<String>,
    /// The number of times that the pull fetched pieces in order because the picker timed out.
    pub picker_timeouts: u32,
    /// The duration of the pull.
    pub elapsed: Duration,
}

/// A pull failed. The store keeps all fetched blocks.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The file cannot be written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No peer has the missing pieces, or no peer answers.
    #[error(
        "{pieces} pieces of {name} ({bytes} bytes) are still missing, and no peer sends them: {reason}; \
         the fetched pieces are kept: pull again when a machine with the others is up, or name one with --peer"
    )]
    NoPeer {
        /// The model's name.
        name: String,
        /// The number of wanted pieces that are missing.
        pieces: usize,
        /// The missing bytes of these pieces.
        bytes: u64,
        /// The failures of the peers.
        reason: String,
    },
    /// The manifest lacks a wanted piece.
    #[error("{name} has {pieces} pieces, there is no piece {piece}")]
    UnknownPiece {
        /// The model's name.
        name: String,
        /// The number of its pieces.
        pieces: usize,
        /// The wanted piece.
        piece: u32,
    },
    /// A thread of this machine failed.
    #[error("a task of the pull failed: {0}")]
    Task(String),
}

/// Counters that all fetches of a pull share.
#[derive(Debug, Default)]
pub(crate) struct PullCounters {
    /// Bytes received from peers.
    pub(crate) received_bytes: AtomicU64,
    /// Bytes that the store kept.
    pub(crate) kept_bytes: AtomicU64,
    /// Blocks that did not match the manifest.
    pub(crate) corrupt_blocks: AtomicU64,
    /// Blocks that arrived twice.
    pub(crate) duplicate_blocks: AtomicU64,
}

impl PullCounters {
    pub(crate) fn add(counter: &AtomicU64, count: u64) {
        counter.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn get(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::Relaxed)
    }
}
