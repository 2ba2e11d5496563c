//! Counters of an engine, for metrics: written by its thread, read by anyone.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// Counters since the engine was loaded.
#[derive(Debug, Default)]
pub struct Stats {
    /// Requests that have no sequence yet.
    pub(crate) waiting: AtomicUsize,
    /// Sequences that are open.
    pub(crate) active: AtomicUsize,
    pub(crate) ticks: AtomicU64,
    pub(crate) rows: AtomicU64,
    pub(crate) committed: AtomicU64,
    pub(crate) reused: AtomicU64,
    pub(crate) ties: AtomicU64,
    pub(crate) token_nanoseconds: AtomicU64,
    pub(crate) row_nanoseconds: AtomicU64,
}

impl Stats {
    /// Requests that wait for a sequence.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Acquire)
    }

    /// Sequences that are open.
    #[must_use]
    pub fn active(&self) -> usize {
        self.active.load(Ordering::Acquire)
    }

    /// Forward passes.
    #[must_use]
    pub fn ticks(&self) -> u64 {
        self.ticks.load(Ordering::Relaxed)
    }

    /// Rows (tokens of any kind) in all forward passes.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }

    /// Tokens committed.
    #[must_use]
    pub fn committed(&self) -> u64 {
        self.committed.load(Ordering::Relaxed)
    }

    /// Tokens of prompts that were found in the cache.
    #[must_use]
    pub fn reused(&self) -> u64 {
        self.reused.load(Ordering::Relaxed)
    }

    /// Positions decided again by a one-token pass.
    #[must_use]
    pub fn ties(&self) -> u64 {
        self.ties.load(Ordering::Relaxed)
    }

    /// How long a forward pass over one row takes.
    #[must_use]
    pub fn token_time(&self) -> Duration {
        Duration::from_nanos(self.token_nanoseconds.load(Ordering::Relaxed))
    }

    /// How long one row of a large forward pass takes.
    #[must_use]
    pub fn row_time(&self) -> Duration {
        Duration::from_nanos(self.row_nanoseconds.load(Ordering::Relaxed))
    }
}
