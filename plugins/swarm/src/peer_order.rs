//! The order in which slots of peers are filled.
//!
//! Fast peers come before slow ones. A peer with unique pieces comes last among them: the pieces that others take
//! over cost it no upload, so its uplink is left for the unique ones. Each peer gets one fetch per turn.

use std::collections::BTreeMap;

use tightwad_plugin_sdk::piece_picker::Slot;

use crate::peer::Peer;
use crate::pieces::Pieces;

/// A peer is slow if its rate is below this share of the typical rate.
const SLOW_RATE_RATIO: f64 = 0.25;

/// A peer that may get fetches.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PeerTurn {
    /// The peer.
    pub peer: u32,
    /// The number of further fetches.
    pub free: u32,
    /// It gets only pieces that the faster peers leave.
    pub is_slow: bool,
    has_unique: bool,
    /// Seconds per byte.
    cost: f64,
}

/// True if a peer is much slower than the typical peer.
#[must_use]
pub fn is_slow(peer: &Peer, typical_rate: Option<f64>) -> bool {
    let rates = peer.rate.bytes_per_second().zip(typical_rate);
    rates.is_some_and(|(rate, typical_rate)| rate < SLOW_RATE_RATIO * typical_rate)
}

/// The peers that may get fetches, in their order.
#[must_use]
pub fn order(
    now: u64,
    slots: &[Slot],
    peers: &BTreeMap<u32, Peer>,
    pieces: &Pieces,
    typical_rate: Option<f64>,
) -> Vec<PeerTurn> {
    let turn = |slot: &Slot| {
        let peer = peers.get(&slot.peer).filter(|peer| peer.is_ready(now))?;
        let is_slow = is_slow(peer, typical_rate);
        // One fetch measures an unknown peer.
        let max_fetches = if is_slow || peer.rate.bytes_per_second().is_none() { 1 } else { u32::MAX };
        let free = slot.free.min(max_fetches.saturating_sub(peer.in_flight()));
        (free > 0).then(|| PeerTurn {
            peer: slot.peer,
            free,
            is_slow,
            has_unique: pieces.has_unique(&peer.requestable),
            cost: peer.expected_rate(typical_rate).map_or(0.0, |rate| rate.max(1.0).recip()),
        })
    };
    let mut turns: Vec<PeerTurn> = slots.iter().filter_map(turn).collect();
    turns.sort_by(|a, b| {
        (a.is_slow, a.has_unique).cmp(&(b.is_slow, b.has_unique)).then(a.cost.total_cmp(&b.cost))
    });
    turns
}
