//! The state of one peer: its pieces, its rate and its backoff.
//!
//! Invariant: `requestable` is a subset of `have`. It lacks the pieces that the peer failed to send when it was last
//! asked.

use crate::bit_set::BitSet;
use crate::rate::Rate;
use crate::rng::Rng;

const NANOSECONDS_PER_SECOND: f64 = 1e9;
/// The backoff after the first failure. It doubles with each further failure in a row.
const BASE_BACKOFF_NANOSECONDS: f64 = 0.25 * NANOSECONDS_PER_SECOND;
/// The longest backoff.
const MAX_BACKOFF_NANOSECONDS: f64 = 60.0 * NANOSECONDS_PER_SECOND;

/// A peer of this pull.
#[derive(Debug, Clone)]
pub struct Peer {
    /// The pieces that it has, wanted or not.
    pub have: BitSet,
    /// The pieces that it fetched itself, and did not have, by its last report.
    pub in_progress: BitSet,
    /// The pieces that may be requested from it.
    pub requestable: BitSet,
    /// Its download rate.
    pub rate: Rate,
    /// It sent bytes that differ from the manifest. Nothing more is requested from it.
    pub banned: bool,
    /// The number of fetches in flight.
    in_flight: u32,
    /// The number of fetches in flight, integrated over time in nanoseconds, until `load_until`.
    load: f64,
    load_until: u64,
    /// Failures since the last complete piece.
    consecutive_failures: u32,
    /// The time until which nothing is requested.
    backoff_until: u64,
}

impl Peer {
    /// An unknown peer, in a pull of `pieces` pieces.
    #[must_use]
    pub fn new(pieces: usize) -> Self {
        let none = BitSet::new(pieces);
        Self {
            have: none.clone(),
            in_progress: none.clone(),
            requestable: none,
            rate: Rate::default(),
            banned: false,
            in_flight: 0,
            load: 0.0,
            load_until: 0,
            consecutive_failures: 0,
            backoff_until: 0,
        }
    }

    /// The number of fetches in flight.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// True if it may be asked now.
    #[must_use]
    pub fn is_ready(&self, now: u64) -> bool {
        !self.banned && now >= self.backoff_until
    }

    /// Advances the load to `now`. Returns it.
    fn advance_load(&mut self, now: u64) -> f64 {
        self.load += f64::from(self.in_flight) * now.saturating_sub(self.load_until) as f64;
        self.load_until = self.load_until.max(now);
        self.load
    }

    /// Records the start of a fetch. Returns the load, which [`Self::end_fetch`] needs.
    pub fn start_fetch(&mut self, now: u64) -> f64 {
        let load = self.advance_load(now);
        self.in_flight += 1;
        load
    }

    /// Records the end of a fetch that started at `started`, with `load`. Returns the mean number of fetches in
    /// flight during it, at least 1.
    pub fn end_fetch(&mut self, now: u64, started: u64, load: f64) -> f64 {
        let load = self.advance_load(now) - load;
        self.in_flight = self.in_flight.saturating_sub(1);
        let time = now.saturating_sub(started) as f64;
        if time > 0.0 { (load / time).max(1.0) } else { 1.0 }
    }

    /// Records a complete piece.
    pub fn record_success(&mut self) {
        (self.consecutive_failures, self.backoff_until) = (0, 0);
    }

    /// Records a failure. Fetches that fail together are one failure. Random backoffs keep peers that failed
    /// together from being asked together again.
    pub fn record_failure(&mut self, now: u64, rng: &mut Rng) {
        if now < self.backoff_until {
            return;
        }
        let backoff = (BASE_BACKOFF_NANOSECONDS * f64::from(self.consecutive_failures).exp2())
            .min(MAX_BACKOFF_NANOSECONDS);
        self.backoff_until = now + (backoff * (0.75 + 0.5 * rng.next_f64())) as u64;
        self.consecutive_failures = (self.consecutive_failures + 1).min(32);
    }

    /// Makes all its pieces requestable again if no fetch is in flight: a piece that it failed to send may be there
    /// now.
    pub fn reset_requestable(&mut self) {
        if self.in_flight == 0 && !self.banned {
            self.requestable.clone_from(&self.have);
        }
    }

    /// The bytes per second of one more fetch. A peer without a rate has `typical_rate`.
    #[must_use]
    pub fn expected_rate(&self, typical_rate: Option<f64>) -> Option<f64> {
        let rate = self.rate.bytes_per_second().or(typical_rate)?;
        Some(rate / f64::from(self.in_flight + 1))
    }

    /// The bytes per second of one of its fetches in flight.
    #[must_use]
    pub fn current_rate(&self, typical_rate: Option<f64>) -> Option<f64> {
        let rate = self.rate.bytes_per_second().or(typical_rate)?;
        Some(rate / f64::from(self.in_flight.max(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_until_a_piece_is_complete() {
        let (mut peer, mut rng) = (Peer::new(1), Rng::new(1));
        let (mut now, mut last) = (0, 0.0);
        for failure in 0..20 {
            assert!(peer.is_ready(now));
            peer.record_failure(now, &mut rng);
            // The connection broke: its other fetches failed as well.
            peer.record_failure(now, &mut rng);
            let backoff = (peer.backoff_until - now) as f64;
            let expected =
                (BASE_BACKOFF_NANOSECONDS * f64::from(failure).exp2()).min(MAX_BACKOFF_NANOSECONDS);
            assert!((0.74..1.26).contains(&(backoff / expected)), "{failure}: {backoff}");
            assert!(!peer.is_ready(peer.backoff_until - 1));
            now = peer.backoff_until;
            last = backoff;
        }
        assert!(last > 40.0 * NANOSECONDS_PER_SECOND);
        peer.record_success();
        peer.record_failure(now, &mut rng);
        assert!(((peer.backoff_until - now) as f64) < NANOSECONDS_PER_SECOND);
    }

    #[test]
    fn end_of_a_fetch_returns_its_concurrency() {
        let mut peer = Peer::new(1);
        let first = peer.start_fetch(100);
        let second = peer.start_fetch(200);
        assert_eq!(peer.end_fetch(300, 200, second), 2.0);
        assert_eq!(peer.end_fetch(300, 100, first), 1.5);
        assert_eq!(peer.in_flight(), 0);
        let third = peer.start_fetch(1000);
        assert_eq!(peer.end_fetch(2000, 1000, third), 1.0);
    }
}
