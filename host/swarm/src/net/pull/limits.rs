//! What a pull may take, and where it seeds.

use std::sync::Arc;
use std::time::Duration;

use crate::net::limit::RateLimit;
use crate::net::seed::seeds::Seeds;

/// What a pull may take, and how patient it is.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Fetches from one peer at the same time.
    pub requests_a_peer: u32,
    /// Fetches at the same time.
    pub requests: u32,
    /// How long nothing may come of a fetch.
    pub stall: Duration,
    /// How long nothing may come of anybody.
    pub give_up: Duration,
    /// How long the picker may choose nothing while nothing is being fetched and something could be.
    pub patience: Duration,
    /// Bytes a second.
    pub rate: Option<Arc<RateLimit>>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            requests_a_peer: 4,
            requests: 32,
            stall: Duration::from_secs(10),
            give_up: Duration::from_secs(60),
            patience: Duration::from_secs(3),
            rate: None,
        }
    }
}

/// Where this machine seeds what it pulls.
#[derive(Clone)]
pub struct Seeding {
    /// What it seeds.
    pub seeds: Arc<Seeds>,
    /// The port of its server, when others can reach it.
    pub port: Option<u16>,
}
