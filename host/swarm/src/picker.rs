//! The interface of a piece picker. Its names are those of `piece-picker` in `wit/`.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

/// A peer of one pull. A pull never reuses an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId(pub u32);

/// The pieces that a pull has to fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// Bytes of each piece of the manifest, in order.
    pub pieces: Vec<u64>,
    /// The wanted pieces that are missing. The first `urgent` ones are needed before the others.
    pub wanted: Vec<u32>,
    /// The number of pieces at the start of `wanted` that are needed first.
    pub urgent: u32,
    /// The seed of random choices.
    pub seed: u64,
}

/// The reason why a fetch did not complete its piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The peer does not have the piece, or has no free upload slot.
    Refused,
    /// The peer sent nothing for too long, or too little while another peer was idle.
    Stalled,
    /// The connection broke.
    Lost,
    /// A block did not match the manifest. The host has banned the peer.
    Corrupt,
    /// Another fetch completed the piece, or the host did not start the pick. No peer is at fault.
    Cancelled,
}

/// An event of a pull.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A peer connected.
    Joined(PeerId),
    /// A peer disconnected or was banned. Its id does not return.
    Left(PeerId),
    /// A peer has these further pieces.
    Have(PeerId, Vec<u32>),
    /// A fetch ended.
    FetchEnded(FetchResult),
    /// A peer itself fetches these pieces, and will have them soon.
    InProgress(PeerId, Vec<u32>),
}

/// The result of a fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchResult {
    /// The peer that sent the blocks.
    pub peer: PeerId,
    /// The fetched piece.
    pub piece: u32,
    /// Bytes of this peer that the store kept.
    pub bytes: u64,
    /// The duration of the fetch.
    pub elapsed: Duration,
    /// `None`: the piece is complete.
    pub fault: Option<Fault>,
}

/// The number of further fetches that a peer may serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// The peer.
    pub peer: PeerId,
    /// The number of fetches; at least 1.
    pub free: u32,
}

/// A request for one piece from one peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fetch {
    /// The peer that should send the piece.
    pub peer: PeerId,
    /// The piece.
    pub piece: u32,
}

/// The picker failed.
#[derive(Debug)]
pub struct PickError(pub String);

impl fmt::Display for PickError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for PickError {}

/// Chooses the next pieces of one pull, and their peers. The picker receives all events of the pull in order.
/// The pull checks every pick before it starts a fetch.
#[async_trait]
pub trait Picker: Send {
    /// Receives the task. The pull calls this method once, before all others.
    ///
    /// # Errors
    ///
    /// When the policy fails.
    async fn start(&mut self, task: &Task) -> Result<(), PickError>;

    /// Receives the events since the last call, and chooses fetches: at most `free` per slot. `now` counts
    /// from the start of the pull. The pull ignores picks of complete pieces, and of pieces that the peer
    /// does not have. The picker may choose a piece in flight again, from another peer (endgame). Both
    /// fetches then share the piece's missing blocks.
    ///
    /// # Errors
    ///
    /// When the policy fails.
    async fn pick(
        &mut self,
        now: Duration,
        events: Vec<Event>,
        slots: &[Slot],
    ) -> Result<Vec<Fetch>, PickError>;
}
