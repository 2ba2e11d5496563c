//! A limit in bytes per second.
//!
//! Invariant: `free_at` is the time at which the rate has covered all acquired bytes. Each new request moves
//! it to at most one burst before the present.

use std::sync::Mutex;
use std::time::Duration;

use tightwad_core::sync;
use tokio::time::{Instant, sleep_until};

/// The burst after an idle time, as time at the full rate.
const MAX_BURST_TIME: Duration = Duration::from_millis(100);
/// Chunks per second at the full rate. Small chunks keep transfers that share a slow limit from looking
/// stalled.
const CHUNKS_PER_SECOND: u64 = 8;
/// Size of the smallest chunk.
const MIN_CHUNK_BYTES: u64 = 4 << 10;

/// A limit in bytes per second, which several transfers share.
#[derive(Debug)]
pub struct RateLimit {
    bytes_per_second: u64,
    free_at: Mutex<Instant>,
}

impl RateLimit {
    /// Allows `bytes_per_second`; 0 counts as 1.
    #[must_use]
    pub fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second: bytes_per_second.max(1), free_at: Mutex::new(Instant::now()) }
    }

    /// The limit.
    #[must_use]
    pub fn bytes_per_second(&self) -> u64 {
        self.bytes_per_second
    }

    /// The number of bytes that a transfer should acquire in one call, at most `max`.
    pub(crate) fn chunk_size(&self, max: u64) -> u64 {
        (self.bytes_per_second / CHUNKS_PER_SECOND).clamp(MIN_CHUNK_BYTES, max.max(MIN_CHUNK_BYTES))
    }

    /// Waits until `bytes` further bytes may pass. Callers are served in the order of their calls.
    pub async fn acquire(&self, bytes: u64) {
        sleep_until(self.reserve(bytes)).await;
    }

    fn reserve(&self, bytes: u64) -> Instant {
        let cost = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        let now = Instant::now();
        let mut free_at = sync::lock(&self.free_at);
        let begin = (*free_at).max(now.checked_sub(MAX_BURST_TIME).unwrap_or(now));
        *free_at = begin + cost;
        *free_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn acquire_takes_the_time_of_the_rate() {
        let limit = RateLimit::new(1 << 20);
        let begin = Instant::now();
        for _ in 0..4 {
            limit.acquire(128 << 10).await;
        }
        // 512 KiB take 0.5 s, minus the burst.
        assert!(begin.elapsed() >= Duration::from_millis(390), "{:?}", begin.elapsed());
    }

    #[test]
    fn chunk_size_follows_the_rate() {
        assert_eq!(RateLimit::new(8 << 20).chunk_size(256 << 10), 256 << 10);
        assert_eq!(RateLimit::new(80_000).chunk_size(256 << 10), 10_000);
        assert_eq!(RateLimit::new(1).chunk_size(256 << 10), MIN_CHUNK_BYTES);
    }
}
