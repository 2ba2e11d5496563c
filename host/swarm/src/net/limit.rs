//! How many bytes a second.
//!
//! Invariant: `free_at` is when all that was taken so far will have been paid for; it is never further in
//! the past than the burst.

use std::sync::Mutex;
use std::time::Duration;

use tightwad_core::sync;
use tokio::time::{Instant, sleep_until};

/// What may be taken at once after a quiet time, as time at the full rate.
const BURST: Duration = Duration::from_millis(100);
/// Parts of a second that one portion takes: what shares a slow limit must not look stalled.
const PORTIONS: u64 = 8;
/// Smallest portion.
const LEAST: u64 = 4 << 10;

/// A limit of bytes a second, shared by everything that takes from it.
#[derive(Debug)]
pub struct RateLimit {
    rate: u64,
    free_at: Mutex<Instant>,
}

impl RateLimit {
    /// At most `rate` bytes a second; 0 counts as 1.
    #[must_use]
    pub fn new(rate: u64) -> Self {
        Self { rate: rate.max(1), free_at: Mutex::new(Instant::now()) }
    }

    /// Bytes a second.
    #[must_use]
    pub fn rate(&self) -> u64 {
        self.rate
    }

    /// How much should be taken at once, `most` at most.
    pub(crate) fn portion(&self, most: u64) -> u64 {
        (self.rate / PORTIONS).clamp(LEAST, most.max(LEAST))
    }

    /// Waits until `bytes` more may pass; whoever asks first goes first.
    pub async fn take(&self, bytes: u64) {
        sleep_until(self.reserve(bytes)).await;
    }

    fn reserve(&self, bytes: u64) -> Instant {
        let cost = Duration::from_secs_f64(bytes as f64 / self.rate as f64);
        let now = Instant::now();
        let mut free_at = sync::lock(&self.free_at);
        let begin = (*free_at).max(now.checked_sub(BURST).unwrap_or(now));
        *free_at = begin + cost;
        *free_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn takes_as_long_as_the_rate_says() {
        let limit = RateLimit::new(1 << 20);
        let begin = Instant::now();
        for _ in 0..4 {
            limit.take(128 << 10).await;
        }
        // Half a second's worth, less the burst.
        assert!(begin.elapsed() >= Duration::from_millis(390), "{:?}", begin.elapsed());
    }

    #[test]
    fn portions_are_parts_of_a_second() {
        assert_eq!(RateLimit::new(8 << 20).portion(256 << 10), 256 << 10);
        assert_eq!(RateLimit::new(80_000).portion(256 << 10), 10_000);
        assert_eq!(RateLimit::new(1).portion(256 << 10), LEAST);
    }
}
