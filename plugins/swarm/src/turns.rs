//! Which peer's slots are filled first.
//!
//! Fast peers before slow ones, and a peer that has what nobody else has after the others: what they take, it
//! need not send, so that its uplink is spent on what only it can give. Each gets one fetch a round.

use std::collections::BTreeMap;

use tightwad_plugin_sdk::piece_picker::Slot;

use crate::peer::Peer;
use crate::pieces::Pieces;

/// A peer is slow when it gives less than this share of what is usual.
const SLOW: f64 = 0.25;

/// A peer that may be given fetches.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Turn {
    /// Which.
    pub peer: u32,
    /// How many more.
    pub free: u32,
    /// It gets what is left.
    pub slow: bool,
    only_there: bool,
    /// Seconds a byte.
    cost: f64,
}

/// Whether a peer is much slower than is usual.
#[must_use]
pub fn is_slow(peer: &Peer, usual: Option<f64>) -> bool {
    let rates = peer.rate.bytes_a_second().zip(usual);
    rates.is_some_and(|(rate, usual)| rate < SLOW * usual)
}

/// Who picks in which order.
#[must_use]
pub fn order(
    now: u64,
    slots: &[Slot],
    peers: &BTreeMap<u32, Peer>,
    pieces: &Pieces,
    usual: Option<f64>,
) -> Vec<Turn> {
    let turn = |slot: &Slot| {
        let peer = peers.get(&slot.peer).filter(|peer| peer.ready(now))?;
        let slow = is_slow(peer, usual);
        // One fetch shows what an unknown peer is worth.
        let most = if slow || peer.rate.bytes_a_second().is_none() { 1 } else { u32::MAX };
        let free = slot.free.min(most.saturating_sub(peer.flying()));
        (free > 0).then(|| Turn {
            peer: slot.peer,
            free,
            slow,
            only_there: pieces.only_there(&peer.offers),
            cost: peer.expected(usual).map_or(0.0, |rate| rate.max(1.0).recip()),
        })
    };
    let mut turns: Vec<Turn> = slots.iter().filter_map(turn).collect();
    turns.sort_by(|a, b| (a.slow, a.only_there).cmp(&(b.slow, b.only_there)).then(a.cost.total_cmp(&b.cost)));
    turns
}
