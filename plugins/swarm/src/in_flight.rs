//! The fetches in flight.

use std::collections::BTreeMap;

/// A fetch in flight.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OngoingFetch {
    /// The start, in nanoseconds.
    pub started: u64,
    /// The peer's accumulated load at the start.
    pub peer_load: f64,
}

/// All fetches in flight: at most one per piece and peer.
#[derive(Debug, Clone, Default)]
pub struct InFlight(BTreeMap<(u32, u32), OngoingFetch>);

impl InFlight {
    /// Records the start of a fetch of `piece` from `peer`.
    pub fn start(&mut self, piece: u32, peer: u32, fetch: OngoingFetch) {
        self.0.insert((piece, peer), fetch);
    }

    /// Records the end of a fetch. Returns it.
    pub fn end(&mut self, piece: u32, peer: u32) -> Option<OngoingFetch> {
        self.0.remove(&(piece, peer))
    }

    /// True if `piece` is in flight from `peer`.
    #[must_use]
    pub fn contains(&self, piece: u32, peer: u32) -> bool {
        self.0.contains_key(&(piece, peer))
    }

    /// The fetches of `piece`, with their peers.
    pub fn of(&self, piece: u32) -> impl Iterator<Item = (u32, OngoingFetch)> {
        self.0.range((piece, 0)..=(piece, u32::MAX)).map(|((_, peer), fetch)| (*peer, *fetch))
    }

    /// The pieces in flight from `peer`.
    pub fn from(&self, peer: u32) -> impl Iterator<Item = u32> {
        self.0.keys().filter(move |(_, of)| *of == peer).map(|(piece, _)| *piece)
    }
}
