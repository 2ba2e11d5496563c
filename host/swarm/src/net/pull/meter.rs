//! The progress of a pull, and whether it still makes any.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::net::pull::report::{Progress, Tally};

/// How often the rate is measured.
pub(crate) const TICK: Duration = Duration::from_secs(1);

/// The progress of a pull.
pub(crate) struct Meter {
    progress: watch::Sender<Progress>,
    shown: Progress,
    /// Bytes that were on this machine before the pull.
    before: u64,
    /// Bytes that had come by the last tick, and its time.
    measured: (u64, Instant),
    /// Bytes that had come when the last byte came, and its time.
    alive: (u64, Instant),
}

impl Meter {
    pub(crate) fn new(progress: watch::Sender<Progress>, shown: Progress) -> Self {
        let now = Instant::now();
        Self { progress, before: shown.bytes_had, shown, measured: (0, now), alive: (0, now) }
    }

    /// When the rate is measured next.
    pub(crate) fn next_tick(&self) -> Instant {
        self.measured.1 + TICK
    }

    /// How long nothing has come.
    pub(crate) fn silence(&mut self, tally: &Tally) -> Duration {
        let came = Tally::of(&tally.came);
        if came > self.alive.0 {
            self.alive = (came, Instant::now());
        }
        self.alive.1.elapsed()
    }

    /// Publishes the progress, when `left` wanted pieces are missing.
    pub(crate) fn show(&mut self, tally: &Tally, left: usize, peers: usize, fetches: u32) {
        let now = Instant::now();
        let (since, came) = (now - self.measured.1, Tally::of(&tally.came));
        if since >= TICK {
            let rate = (came - self.measured.0) as f64 / since.as_secs_f64();
            // Half of what it was: steady to look at, and soon right.
            let before = if self.shown.rate > 0.0 { self.shown.rate } else { rate };
            self.shown.rate = f64::midpoint(before, rate);
            self.measured = (came, now);
        }
        let left = u32::try_from(left).unwrap_or(u32::MAX);
        self.shown.pieces_had = self.shown.pieces_wanted.saturating_sub(left);
        self.shown.bytes_had = match left {
            0 => self.shown.bytes_wanted,
            _ => (self.before + Tally::of(&tally.kept)).min(self.shown.bytes_wanted),
        };
        self.shown.peers = u32::try_from(peers).unwrap_or(u32::MAX);
        self.shown.fetches = fetches;
        self.progress.send_replace(self.shown.clone());
    }
}
