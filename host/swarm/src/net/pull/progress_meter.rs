//! Measures the progress of a pull, and the time without progress.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::net::pull::report::{Progress, PullCounters};

/// Interval of the rate's measurements.
pub(crate) const RATE_INTERVAL: Duration = Duration::from_secs(1);

/// Publishes the progress of a pull.
pub(crate) struct ProgressMeter {
    sender: watch::Sender<Progress>,
    progress: Progress,
    /// Bytes that this machine had before the pull.
    initial_bytes: u64,
    /// Bytes received until the last measurement of the rate, and its time.
    last_measured: (u64, Instant),
    /// Bytes received until the last progress was seen, and the time.
    last_received: (u64, Instant),
}

impl ProgressMeter {
    pub(crate) fn new(sender: watch::Sender<Progress>, progress: Progress) -> Self {
        let now = Instant::now();
        let initial_bytes = progress.have_bytes;
        Self { sender, initial_bytes, progress, last_measured: (0, now), last_received: (0, now) }
    }

    /// The time of the next measurement of the rate.
    pub(crate) fn next_measurement(&self) -> Instant {
        self.last_measured.1 + RATE_INTERVAL
    }

    /// The time since the last progress: `min_bytes` further bytes.
    pub(crate) fn idle_time(&mut self, counters: &PullCounters, min_bytes: u64) -> Duration {
        let received = PullCounters::get(&counters.received_bytes);
        if received - self.last_received.0 >= min_bytes.max(1) {
            self.last_received = (received, Instant::now());
        }
        self.last_received.1.elapsed()
    }

    /// Publishes the progress. `remaining` counts the wanted pieces that are missing.
    pub(crate) fn publish(&mut self, counters: &PullCounters, remaining: usize, peers: usize, fetches: u32) {
        let now = Instant::now();
        let (interval, received) = (now - self.last_measured.1, PullCounters::get(&counters.received_bytes));
        if interval >= RATE_INTERVAL {
            let rate = (received - self.last_measured.0) as f64 / interval.as_secs_f64();
            // The mean of the old and the new rate: steady on a display, and correct within seconds.
            let last =
                if self.progress.bytes_per_second > 0.0 { self.progress.bytes_per_second } else { rate };
            self.progress.bytes_per_second = f64::midpoint(last, rate);
            self.last_measured = (received, now);
        }
        let remaining = u32::try_from(remaining).unwrap_or(u32::MAX);
        self.progress.have_pieces = self.progress.wanted_pieces.saturating_sub(remaining);
        self.progress.have_bytes = match remaining {
            0 => self.progress.wanted_bytes,
            _ => {
                let have = self.initial_bytes + PullCounters::get(&counters.kept_bytes);
                have.min(self.progress.wanted_bytes)
            }
        };
        self.progress.peers = u32::try_from(peers).unwrap_or(u32::MAX);
        self.progress.fetches = fetches;
        self.sender.send_replace(self.progress.clone());
    }
}
