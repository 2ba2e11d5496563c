//! The fetches under way.

use std::collections::BTreeMap;

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Flight {
    /// When it began, in nanoseconds.
    pub began: u64,
    /// The traffic of its peer then.
    pub traffic: f64,
}

/// All of them: at most one of a piece from a peer.
#[derive(Debug, Clone, Default)]
pub struct Flights(BTreeMap<(u32, u32), Flight>);

impl Flights {
    /// A fetch of `piece` from `peer` begins.
    pub fn begin(&mut self, piece: u32, peer: u32, flight: Flight) {
        self.0.insert((piece, peer), flight);
    }

    /// It is over.
    pub fn end(&mut self, piece: u32, peer: u32) -> Option<Flight> {
        self.0.remove(&(piece, peer))
    }

    /// Whether `piece` is being fetched from `peer`.
    #[must_use]
    pub fn has(&self, piece: u32, peer: u32) -> bool {
        self.0.contains_key(&(piece, peer))
    }

    /// Peers that `piece` is being fetched from.
    pub fn of(&self, piece: u32) -> impl Iterator<Item = (u32, Flight)> {
        self.0.range((piece, 0)..=(piece, u32::MAX)).map(|((_, peer), flight)| (*peer, *flight))
    }

    /// Pieces that are being fetched from `peer`.
    pub fn from(&self, peer: u32) -> impl Iterator<Item = u32> {
        self.0.keys().filter(move |(_, of)| *of == peer).map(|(piece, _)| *piece)
    }
}
