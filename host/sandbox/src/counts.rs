//! What a plugin's calls took.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How often a plugin was called, for how long, and how often it failed.
#[derive(Debug, Default)]
pub struct CallCounts {
    calls: AtomicU64,
    nanoseconds: AtomicU64,
    failures: AtomicU64,
}

impl CallCounts {
    /// Records a call that took `took`.
    pub fn note(&self, took: Duration, failed: bool) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
        self.failures.fetch_add(u64::from(failed), Ordering::Relaxed);
    }

    /// Calls so far.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// Time in all of them.
    #[must_use]
    pub fn time(&self) -> Duration {
        Duration::from_nanos(self.nanoseconds.load(Ordering::Relaxed))
    }

    /// Calls that trapped, broke a limit or were answered with nonsense.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }
}
