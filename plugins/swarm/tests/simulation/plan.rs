//! What is simulated, and what comes out.

use std::time::Duration;

use tightwad_plugin_sdk::Settings;

/// What peers there are.
#[derive(Debug, Clone)]
pub struct Peers {
    /// How many there are at first, besides the first seeder.
    pub first: usize,
    /// Bytes a second up and down, of peer number so and so.
    pub rates: fn(usize) -> (f64, f64),
    /// How many others a peer knows when it comes; `usize::MAX`: all.
    pub knows: usize,
}

/// Peers come and leave.
#[derive(Debug, Clone, Copy)]
pub struct Churn {
    /// Seconds that a peer stays, on average, whether it is done or not.
    pub stays: f64,
    /// Peers that come a second, on average.
    pub come: f64,
    /// No peer leaves before so many seconds.
    pub from: f64,
}

/// What is simulated.
#[derive(Debug, Clone)]
pub struct Plan {
    pub pieces: usize,
    /// Bytes of a piece.
    pub piece: u64,
    pub peers: Peers,
    /// The first seeder's uplink.
    pub seeder: f64,
    /// It leaves when it has sent so many models.
    pub seeder_sends: f64,
    /// Fetches at a time from one peer.
    pub fetches: u32,
    /// Uploads at a time of one peer; more are refused.
    pub uploads: usize,
    /// Seconds until others know of a piece, or of a refusal.
    pub delay: f64,
    pub churn: Option<Churn>,
    /// Seconds until the end of the simulation.
    pub until: f64,
    /// The policy's settings.
    pub settings: Settings,
    pub seed: u64,
}

impl Plan {
    /// `first` equal peers that know each other, each with the seeder's uplink and four times that down, a piece a
    /// second.
    pub fn equal(first: usize, pieces: usize) -> Self {
        Self {
            pieces,
            piece: 1_000_000,
            peers: Peers { first, rates: |_| (1e6, 4e6), knows: usize::MAX },
            seeder: 1e6,
            seeder_sends: f64::INFINITY,
            fetches: 2,
            uploads: 8,
            delay: 0.05,
            churn: None,
            until: 100_000.0,
            settings: Settings::default(),
            seed: 1,
        }
    }

    /// The same with another order.
    pub fn order(mut self, order: &str) -> Self {
        self.settings = Settings::default().with("order", order);
        self
    }

    /// Bytes of the model.
    pub fn size(&self) -> f64 {
        self.pieces as f64 * self.piece as f64
    }
}

/// What came out.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Each peer: when it came and when it was done, in seconds.
    pub peers: Vec<(f64, Option<f64>)>,
    /// Bytes that the first seeder sent.
    pub seeder: f64,
    /// Bytes that all sent.
    pub sent: f64,
    /// When the simulation ended, in seconds.
    pub end: f64,
    /// Calls of the policy, the fetches they gave, the events they brought, and the time they took.
    pub calls: u64,
    pub fetches: u64,
    pub events: u64,
    pub refused: u64,
    pub thought: Duration,
}

impl Outcome {
    /// How many are done.
    pub fn done(&self) -> usize {
        self.peers.iter().filter(|(_, done)| done.is_some()).count()
    }

    /// When the last one was done, if all were.
    pub fn last(&self) -> Option<f64> {
        let times: Option<Vec<f64>> = self.peers.iter().map(|(_, done)| *done).collect();
        times?.into_iter().max_by(f64::total_cmp)
    }

    /// The share of all peers that was done `seconds` after it came.
    pub fn share(&self, seconds: f64) -> f64 {
        let done = self.peers.iter().filter(|(came, done)| done.is_some_and(|done| done - came <= seconds));
        done.count() as f64 / self.peers.len().max(1) as f64
    }
}
