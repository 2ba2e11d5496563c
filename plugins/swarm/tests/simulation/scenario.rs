//! The parameters of a simulation, and its outcome.

use std::time::Duration;

use tightwad_plugin_sdk::Settings;

/// The peers of a simulation.
#[derive(Debug, Clone)]
pub struct Peers {
    /// The number of peers at the start, without the first seeder.
    pub first: usize,
    /// Bytes per second up and down, by the index of the peer.
    pub rates: fn(usize) -> (f64, f64),
    /// The number of peers that a new peer knows; `usize::MAX`: all.
    pub known_peers: usize,
}

/// Peers that join and leave.
#[derive(Debug, Clone, Copy)]
pub struct Churn {
    /// The mean time that a peer stays, in seconds, whether it is complete or not.
    pub mean_stay: f64,
    /// The mean number of peers that join per second.
    pub arrivals_per_second: f64,
    /// No peer leaves before this time, in seconds.
    pub quiet_seconds: f64,
}

/// The parameters of a simulation.
#[derive(Debug, Clone)]
pub struct Scenario {
    pub pieces: usize,
    /// Bytes per piece.
    pub piece_size: u64,
    pub peers: Peers,
    /// The first seeder's uplink, in bytes per second.
    pub seeder: f64,
    /// The first seeder leaves after this many copies of the model.
    pub seeder_copies: f64,
    /// Fetches at a time from one peer.
    pub max_fetches: u32,
    /// Uploads at a time of one peer. Further requests are refused.
    pub max_uploads: usize,
    /// Seconds until other peers know of a piece or a refusal.
    pub announce_delay: f64,
    pub churn: Option<Churn>,
    /// Seconds until the end of the simulation.
    pub duration: f64,
    /// The picker's settings.
    pub settings: Settings,
    pub seed: u64,
}

impl Scenario {
    /// `first` equal peers that know each other. Each has the seeder's uplink, one piece per second, and four times
    /// that down.
    pub fn equal(first: usize, pieces: usize) -> Self {
        Self {
            pieces,
            piece_size: 1_000_000,
            peers: Peers { first, rates: |_| (1e6, 4e6), known_peers: usize::MAX },
            seeder: 1e6,
            seeder_copies: f64::INFINITY,
            max_fetches: 2,
            max_uploads: 8,
            announce_delay: 0.05,
            churn: None,
            duration: 100_000.0,
            settings: Settings::default(),
            seed: 1,
        }
    }

    /// The same scenario with another order.
    pub fn order(mut self, order: &str) -> Self {
        self.settings = Settings::default().with("order", order);
        self
    }

    /// The bytes of the model.
    pub fn size(&self) -> f64 {
        self.pieces as f64 * self.piece_size as f64
    }
}

/// The outcome of a simulation.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// The times at which each peer joined and was complete, in seconds.
    pub peers: Vec<(f64, Option<f64>)>,
    /// Bytes that the first seeder sent.
    pub seeder: f64,
    /// Bytes that all peers sent.
    pub sent: f64,
    /// The end of the simulation, in seconds.
    pub end: f64,
    /// Calls of the picker, their fetches, their events and their time.
    pub calls: u64,
    pub fetches: u64,
    pub events: u64,
    pub refused: u64,
    pub call_time: Duration,
}

impl Outcome {
    /// The number of complete peers.
    pub fn done(&self) -> usize {
        self.peers.iter().filter(|(_, finished_at)| finished_at.is_some()).count()
    }

    /// The time at which the last peer was complete. `None`: not all are.
    pub fn last(&self) -> Option<f64> {
        let times: Option<Vec<f64>> = self.peers.iter().map(|(_, finished_at)| *finished_at).collect();
        times?.into_iter().max_by(f64::total_cmp)
    }

    /// The share of all peers that were complete `seconds` after they joined.
    pub fn share(&self, seconds: f64) -> f64 {
        let complete = self.peers.iter().filter(|(joined_at, finished_at)| {
            finished_at.is_some_and(|finished_at| finished_at - joined_at <= seconds)
        });
        complete.count() as f64 / self.peers.len().max(1) as f64
    }
}
