//! Who decides what is fetched next.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

/// A peer of one pull; never used again for another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId(pub u32);

/// What is to be fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// Bytes of each piece of the manifest, in order.
    pub pieces: Vec<u64>,
    /// The pieces that are missing and wanted. The first `urgent` of them are needed before the others.
    pub wanted: Vec<u32>,
    /// How many of `wanted` are needed first.
    pub urgent: u32,
    /// What random choices begin with.
    pub seed: u64,
}

/// Why a fetch brought less than the whole piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The peer said that it does not have the piece, or has too much to do.
    Refused,
    /// Nothing came for too long.
    Stalled,
    /// The connection broke.
    Lost,
    /// A block was not what the manifest says. The host has banned the peer.
    Corrupt,
    /// Another fetch brought the rest of the piece, or the pick was not done: nobody's fault.
    Cancelled,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A peer is there.
    Joined(PeerId),
    /// A peer is gone, for good: it was lost or banned.
    Left(PeerId),
    /// A peer has these pieces besides those it had before.
    Has(PeerId, Vec<u32>),
    /// A fetch is over.
    Done(Fetched),
    /// A peer is fetching these pieces, too: it will have them soon.
    Coming(PeerId, Vec<u32>),
}

/// A fetch that is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// From whom.
    pub peer: PeerId,
    /// Which piece.
    pub piece: u32,
    /// Bytes that came from this peer and are kept.
    pub bytes: u64,
    /// How long it took.
    pub took: Duration,
    /// `None`: the piece is had.
    pub fault: Option<Fault>,
}

/// How many more fetches a peer may be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// The peer.
    pub peer: PeerId,
    /// How many; at least 1.
    pub free: u32,
}

/// One piece from one peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fetch {
    /// From whom.
    pub peer: PeerId,
    /// Which piece.
    pub piece: u32,
}

/// Why there is no decision.
#[derive(Debug)]
pub struct PickError(pub String);

impl fmt::Display for PickError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for PickError {}

/// Decides what is fetched next, and from whom: one for one pull. It is told everything that happens, in
/// order; what it picks is checked before it is done.
#[async_trait]
pub trait Picker: Send {
    /// Says what is to be fetched; called once, before anything else.
    ///
    /// # Errors
    ///
    /// When the policy failed.
    async fn start(&mut self, task: &Task) -> Result<(), PickError>;

    /// Says what happened since the last time, and asks for fetches. At most `free` a slot; a piece that
    /// is had or that the peer does not have is ignored; a piece that is being fetched may be picked again
    /// from another peer (the end game): the two share what is missing of it.
    ///
    /// # Errors
    ///
    /// When the policy failed.
    async fn pick(
        &mut self,
        now: Duration,
        events: Vec<Event>,
        slots: &[Slot],
    ) -> Result<Vec<Fetch>, PickError>;
}
