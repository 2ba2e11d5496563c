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
    /// A pull that receives nothing for this long fails.
    pub timeout: Duration,
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
            picker_timeout: Duration::from_secs(3),
            rate_limit: None,
        }
    }
}

/// The seeding of the model during its pull.
#[derive(Clone)]
pub struct Seeding {
    /// The registry that the seeder serves.
    pub seeds: Arc<Seeds>,
    /// The port of the seeder, if other machines can reach it.
    pub port: Option<u16>,
}
