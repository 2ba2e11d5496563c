//! What a pull tells: while it runs, at its end, and when it fails.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::disk::error::StoreError;
use crate::net::peer::Peer;

/// How far a pull is.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Progress {
    /// Bytes of the wanted pieces that are on this machine and checked.
    pub bytes_had: u64,
    /// Bytes of the wanted pieces.
    pub bytes_wanted: u64,
    /// Wanted pieces that are complete.
    pub pieces_had: u32,
    /// Wanted pieces.
    pub pieces_wanted: u32,
    /// Bytes a second that came lately, those that were of no use included.
    pub rate: f64,
    /// Peers that are there.
    pub peers: u32,
    /// Fetches that run.
    pub fetches: u32,
}

/// What a pull did.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// Bytes that came and are kept.
    pub bytes: u64,
    /// How many of them each peer brought; only peers that brought some.
    pub from: Vec<(Peer, u64)>,
    /// Bytes that came for nothing: corrupt, broken off, or second copies.
    pub wasted: u64,
    /// Blocks that were not what the manifest says.
    pub corrupt: u64,
    /// Blocks that came twice.
    pub duplicate: u64,
    /// Peers that sent corrupt blocks.
    pub banned: Vec<Peer>,
    /// Why the picker was given up, when it failed; pieces were then fetched in order.
    pub picker_failed: Option<String>,
    /// How often pieces were fetched in order because the picker chose nothing though there was much to do.
    pub helped: u32,
    /// How long it took.
    pub took: Duration,
}

/// Why a pull ended early. What it fetched is kept.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The file cannot be written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Nobody has what is missing, or nobody answers.
    #[error(
        "{pieces} pieces of {name} ({bytes} bytes) are still missing, and no peer brings them: {why}; \
         what was fetched is kept: pull again when a machine that has them is up, or name one with --peer"
    )]
    Nobody {
        /// The model's name.
        name: String,
        /// Wanted pieces that are missing.
        pieces: usize,
        /// Their bytes that are missing.
        bytes: u64,
        /// What became of the peers.
        why: String,
    },
    /// A piece is wanted that the manifest does not have.
    #[error("{name} has {pieces} pieces, there is no piece {piece}")]
    NoPiece {
        /// The model's name.
        name: String,
        /// How many there are.
        pieces: usize,
        /// Which one was wanted.
        piece: u32,
    },
    /// A thread of this machine failed.
    #[error("a task of the pull failed: {0}")]
    Task(String),
}

/// Counters that all fetches of a pull share.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Bytes that came.
    pub(crate) came: AtomicU64,
    /// Bytes that are kept.
    pub(crate) kept: AtomicU64,
    /// Blocks that were wrong.
    pub(crate) corrupt: AtomicU64,
    /// Blocks that came twice.
    pub(crate) duplicate: AtomicU64,
}

impl Tally {
    pub(crate) fn add(counter: &AtomicU64, bytes: u64) {
        counter.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn of(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::Relaxed)
    }
}
