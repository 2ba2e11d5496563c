//! Endgame: when all pieces are in flight, the piece that is expected last is fetched from a second peer that helps.
//! The fetches of a piece share its missing blocks, so few bytes arrive twice.

use std::collections::BTreeMap;

use crate::in_flight::InFlight;
use crate::peer::Peer;
use crate::pieces::{Pieces, Priority};

const NANOSECONDS_PER_SECOND: f64 = 1e9;
/// A second fetch is useless for a piece that is expected within this time.
const SOON_SECONDS: f64 = 0.02;
/// A second fetch helps if its rate is at least this share of the current rate.
const MIN_RATE_RATIO: f64 = 0.25;
/// An overdue fetch is expected to take this share of its elapsed time more.
const LATE_RATIO: f64 = 0.125;

/// The expected end of a piece.
#[derive(Debug, Clone, Copy, PartialEq)]
struct PieceOutlook {
    piece: u32,
    /// The expected remaining seconds.
    seconds_left: f64,
    /// Bytes per second. `None`: the rate of no peer is known.
    rate: Option<f64>,
    /// The number of its fetches.
    fetches: u32,
}

/// The pieces that may get a further fetch in one call of the picker. The piece that is expected last comes first.
#[derive(Debug, Clone, Default)]
pub struct Endgame {
    outlooks: Vec<PieceOutlook>,
    typical_rate: Option<f64>,
    max_fetches: u32,
}

impl Endgame {
    /// Creates the endgame of a priority, with at most `max_fetches` fetches per piece. It is empty while pieces of
    /// the priority can still be fetched for the first time.
    #[must_use]
    pub fn new(
        (now, max_fetches, typical_rate): (u64, u32, Option<f64>),
        priority: Priority,
        pieces: &Pieces,
        peers: &BTreeMap<u32, Peer>,
        in_flight: &InFlight,
    ) -> Self {
        let mut outlooks = Vec::new();
        if let Some(candidates) = pieces.all_in_flight(priority).filter(|_| max_fetches > 1) {
            for piece in candidates.iter() {
                let outlook =
                    outlook(now, typical_rate, (piece, pieces.missing_bytes_of(piece)), peers, in_flight);
                if outlook.fetches < max_fetches {
                    outlooks.push(outlook);
                }
            }
        }
        outlooks.sort_by(|a, b| b.seconds_left.total_cmp(&a.seconds_left));
        Self { outlooks, typical_rate, max_fetches }
    }

    /// Picks a piece for a further fetch from `peer_id`, and counts that fetch.
    pub fn second_fetch(&mut self, peer_id: u32, peer: &Peer, in_flight: &InFlight) -> Option<u32> {
        let expected = peer.expected_rate(self.typical_rate);
        let at = self.outlooks.iter().position(|one| {
            peer.requestable.contains(one.piece)
                && one.is_helped_by(expected)
                && !in_flight.contains(one.piece, peer_id)
        })?;
        let one = self.outlooks.get_mut(at)?;
        let piece = one.piece;
        one.fetches += 1;
        if let (Some(rate), Some(more)) = (&mut one.rate, expected) {
            one.seconds_left *= *rate / (*rate + more);
            *rate += more;
        }
        if one.fetches >= self.max_fetches {
            self.outlooks.remove(at);
        }
        Some(piece)
    }
}

impl PieceOutlook {
    fn is_helped_by(&self, more: Option<f64>) -> bool {
        match (more, self.rate) {
            (Some(more), Some(rate)) => self.seconds_left > SOON_SECONDS && more >= MIN_RATE_RATIO * rate,
            // Without any known rate, all peers are equal.
            (_, None) => true,
            (None, Some(_)) => false,
        }
    }
}

fn outlook(
    now: u64,
    typical_rate: Option<f64>,
    (piece, missing): (u32, u64),
    peers: &BTreeMap<u32, Peer>,
    in_flight: &InFlight,
) -> PieceOutlook {
    let missing = missing.max(1) as f64;
    let (mut longest_seconds, mut rates, mut received, mut fetches) = (0.0_f64, 0.0, 0.0, 0);
    for (from, fetch) in in_flight.of(piece) {
        let time = now.saturating_sub(fetch.started) as f64 / NANOSECONDS_PER_SECOND;
        let rate = peers.get(&from).and_then(|peer| peer.current_rate(typical_rate)).unwrap_or(0.0);
        longest_seconds = longest_seconds.max(time);
        rates += rate;
        received += rate * time;
        fetches += 1;
    }
    if rates <= 0.0 {
        return PieceOutlook { piece, seconds_left: longest_seconds, rate: None, fetches };
    }
    // The fetch may be slower than its peers' rates.
    let seconds_left = ((missing - received) / rates).max(LATE_RATIO * longest_seconds);
    PieceOutlook {
        piece,
        seconds_left,
        rate: Some(rates.min(missing / longest_seconds.max(SOON_SECONDS))),
        fetches,
    }
}
