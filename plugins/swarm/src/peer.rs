//! What one peer has, what it is worth, and when it is left alone.
//!
//! `offers` is what may be asked for: all that it has, less what it failed to give when it was last asked.

use crate::chance::Chance;
use crate::rate::Rate;
use crate::set::Set;

const SECOND: f64 = 1e9;
/// How long a peer that failed is left alone, in nanoseconds; doubled with each failure after the other.
const PAUSE: f64 = 0.25 * SECOND;
/// The longest that it is left alone.
const LONGEST: f64 = 60.0 * SECOND;

/// A peer of this pull.
#[derive(Debug, Clone)]
pub struct Peer {
    /// What it has, wanted or not.
    pub has: Set,
    /// What it was fetching itself when it was last heard of, and did not have.
    pub coming: Set,
    /// What it may be asked for.
    pub offers: Set,
    /// How fast it is.
    pub rate: Rate,
    /// It sent what is not in the manifest: nothing more is asked of it.
    pub banned: bool,
    /// How many fetches are under way.
    flying: u32,
    /// Fetches under way times nanoseconds, until `counted`.
    traffic: f64,
    counted: u64,
    /// Failures since the last piece, and until when it is left alone.
    failures: u32,
    until: u64,
}

impl Peer {
    /// One of which nothing is known, in a pull of so many pieces.
    #[must_use]
    pub fn new(pieces: usize) -> Self {
        let none = Set::new(pieces);
        Self {
            has: none.clone(),
            coming: none.clone(),
            offers: none,
            rate: Rate::default(),
            banned: false,
            flying: 0,
            traffic: 0.0,
            counted: 0,
            failures: 0,
            until: 0,
        }
    }

    /// How many fetches are under way.
    #[must_use]
    pub fn flying(&self) -> u32 {
        self.flying
    }

    /// Whether it may be asked now.
    #[must_use]
    pub fn ready(&self, now: u64) -> bool {
        !self.banned && now >= self.until
    }

    /// How many fetches were under way from the beginning to now, times nanoseconds.
    fn count(&mut self, now: u64) -> f64 {
        self.traffic += f64::from(self.flying) * now.saturating_sub(self.counted) as f64;
        self.counted = self.counted.max(now);
        self.traffic
    }

    /// A fetch begins; returns what `end` needs.
    pub fn begin(&mut self, now: u64) -> f64 {
        let traffic = self.count(now);
        self.flying += 1;
        traffic
    }

    /// A fetch that began at `began`, with `traffic`, is over; how many shared the way with it, itself included.
    pub fn end(&mut self, now: u64, began: u64, traffic: f64) -> f64 {
        let meanwhile = self.count(now) - traffic;
        self.flying = self.flying.saturating_sub(1);
        let time = now.saturating_sub(began) as f64;
        if time > 0.0 { (meanwhile / time).max(1.0) } else { 1.0 }
    }

    /// It brought a piece.
    pub fn succeed(&mut self) {
        (self.failures, self.until) = (0, 0);
    }

    /// It failed. Fetches that fail together are one failure. Peers that failed together are not asked
    /// together again.
    pub fn fail(&mut self, now: u64, chance: &mut Chance) {
        if now < self.until {
            return;
        }
        let pause = (PAUSE * f64::from(self.failures).exp2()).min(LONGEST);
        self.until = now + (pause * (0.75 + 0.5 * chance.share())) as u64;
        self.failures = (self.failures + 1).min(32);
    }

    /// Lets all that it has be asked for again, if nothing is under way: what it did not give then, it may
    /// give now.
    pub fn forgive(&mut self) {
        if self.flying == 0 && !self.banned {
            self.offers.clone_from(&self.has);
        }
    }

    /// Bytes a second that one more fetch can expect, where `usual` is what the others give.
    #[must_use]
    pub fn expected(&self, usual: Option<f64>) -> Option<f64> {
        let rate = self.rate.bytes_a_second().or(usual)?;
        Some(rate / f64::from(self.flying + 1))
    }

    /// Bytes a second that one of the fetches under way can expect.
    #[must_use]
    pub fn expected_each(&self, usual: Option<f64>) -> Option<f64> {
        let rate = self.rate.bytes_a_second().or(usual)?;
        Some(rate / f64::from(self.flying.max(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_until_a_piece_came() {
        let (mut peer, mut chance) = (Peer::new(1), Chance::new(1));
        let (mut now, mut last) = (0, 0.0);
        for failure in 0..20 {
            assert!(peer.ready(now));
            peer.fail(now, &mut chance);
            // The connection broke: its other fetches failed as well.
            peer.fail(now, &mut chance);
            let pause = (peer.until - now) as f64;
            let expected = (PAUSE * f64::from(failure).exp2()).min(LONGEST);
            assert!((0.74..1.26).contains(&(pause / expected)), "{failure}: {pause}");
            assert!(!peer.ready(peer.until - 1));
            now = peer.until;
            last = pause;
        }
        assert!(last > 40.0 * SECOND);
        peer.succeed();
        peer.fail(now, &mut chance);
        assert!(((peer.until - now) as f64) < SECOND);
    }

    #[test]
    fn lanes_are_what_was_shared() {
        let mut peer = Peer::new(1);
        let first = peer.begin(100);
        let second = peer.begin(200);
        assert_eq!(peer.end(300, 200, second), 2.0);
        assert_eq!(peer.end(300, 100, first), 1.5);
        assert_eq!(peer.flying(), 0);
        let third = peer.begin(1000);
        assert_eq!(peer.end(2000, 1000, third), 1.0);
    }
}
