//! Counters of an engine, for metrics, and its health. The engine's thread writes them; any thread reads them.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tightwad_core::{Health, sync};

/// Counters since the engine was loaded.
#[derive(Debug, Default)]
pub struct Stats {
    /// Requests that have no slot yet.
    pub(crate) queued_requests: AtomicUsize,
    /// Open sequences.
    pub(crate) active_sequences: AtomicUsize,
    pub(crate) forward_passes: AtomicU64,
    pub(crate) rows: AtomicU64,
    pub(crate) committed_tokens: AtomicU64,
    pub(crate) reused_tokens: AtomicU64,
    pub(crate) tied_positions: AtomicU64,
    pub(crate) time_per_token_ns: AtomicU64,
    pub(crate) time_per_row_ns: AtomicU64,
    pub(crate) restarts: AtomicU64,
    pub(crate) health: Mutex<Health>,
}

impl Stats {
    /// Requests that wait for a slot.
    #[must_use]
    pub fn queued_requests(&self) -> usize {
        self.queued_requests.load(Ordering::Acquire)
    }

    /// Open sequences.
    #[must_use]
    pub fn active_sequences(&self) -> usize {
        self.active_sequences.load(Ordering::Acquire)
    }

    /// Forward passes.
    #[must_use]
    pub fn forward_passes(&self) -> u64 {
        self.forward_passes.load(Ordering::Relaxed)
    }

    /// Rows (tokens of any kind) of all forward passes.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }

    /// Committed tokens.
    #[must_use]
    pub fn committed_tokens(&self) -> u64 {
        self.committed_tokens.load(Ordering::Relaxed)
    }

    /// Prompt tokens that were found in the cache.
    #[must_use]
    pub fn reused_tokens(&self) -> u64 {
        self.reused_tokens.load(Ordering::Relaxed)
    }

    /// Positions that a one-token pass decided again.
    #[must_use]
    pub fn tied_positions(&self) -> u64 {
        self.tied_positions.load(Ordering::Relaxed)
    }

    /// Restarts after a panic.
    #[must_use]
    pub fn restarts(&self) -> u64 {
        self.restarts.load(Ordering::Relaxed)
    }

    /// The health of the engine.
    #[must_use]
    pub fn health(&self) -> Health {
        sync::lock(&self.health).clone()
    }

    pub(crate) fn set_health(&self, health: Health) {
        *sync::lock(&self.health) = health;
    }

    /// Duration of a forward pass over one row.
    #[must_use]
    pub fn time_per_token(&self) -> Duration {
        Duration::from_nanos(self.time_per_token_ns.load(Ordering::Relaxed))
    }

    /// Duration of a large forward pass, per row.
    #[must_use]
    pub fn time_per_row(&self) -> Duration {
        Duration::from_nanos(self.time_per_row_ns.load(Ordering::Relaxed))
    }
}
