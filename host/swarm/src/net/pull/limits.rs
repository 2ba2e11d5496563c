//! The limits of a pull, and its own seeding.

use std::sync::Arc;
use std::time::Duration;

use crate::net::rate_limit::RateLimit;
use crate::net::seed::seeds::Seeds;

/// The limits and timeouts of a pull.
#[derive(Debug, Clone)]
pub struct PullLimits {
    /// Fetches from one peer at the same time.
    pub max_requests_per_peer: u32,
    /// Fetches at the same time.
    pub max_requests: u32,
    /// A fetch that receives nothing for this long has stalled.
    pub stall_timeout: Duration,
    /// A pull that receives less than `min_bytes_per_second` for this long fails.
    pub timeout: Duration,
    /// Bytes per second below which a transfer makes no progress. A fetch below this rate for
    /// `stall_timeout` loses its piece to an idle peer, if there is one.
    pub min_bytes_per_second: u32,
    /// A picker that chooses nothing for this long is bypassed once. The time counts only while no fetch runs
    /// and a fetch is possible.
    pub picker_timeout: Duration,
    /// The limit of the download rate.
    pub rate_limit: Option<Arc<RateLimit>>,
}

impl Default for PullLimits {
    fn default() -> Self {
        Self {
            max_requests_per_peer: 4,
            max_requests: 32,
            stall_timeout: Duration::from_secs(10),
            timeout: Duration::from_secs(60),
            min_bytes_per_second: 1 << 10,
            picker_timeout: Duration::from_secs(3),
            rate_limit: None,
        }
    }
}

impl PullLimits {
    /// `min_bytes_per_second`, or less when this machine limits its own rate.
    pub(crate) fn effective_min_rate(&self) -> u64 {
        let share = self
            .rate_limit
            .as_ref()
            .map_or(u64::MAX, |limit| limit.bytes_per_second() / (2 * u64::from(self.max_requests.max(1))));
        u64::from(self.min_bytes_per_second).min(share)
    }
}

/// The seeding of the model during its pull.
#[derive(Clone)]
pub struct Seeding {
    /// The registry that the seeder serves.
    pub seeds: Arc<Seeds>,
    /// The port of the seeder, if other machines can reach it.
    pub port: Option<u16>,
    /// Whether the seeder is encrypted.
    pub encrypted: bool,
}
