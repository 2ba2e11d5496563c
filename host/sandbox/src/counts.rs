//! The counts of a plugin's calls.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The number of calls of a plugin's exports, their failures and their time.
#[derive(Debug, Default)]
pub struct CallCounts {
    calls: AtomicU64,
    nanoseconds: AtomicU64,
    failures: AtomicU64,
}

impl CallCounts {
    /// Records a call.
    pub fn record(&self, elapsed: Duration, failed: bool) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let nanoseconds = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        self.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
        self.failures.fetch_add(u64::from(failed), Ordering::Relaxed);
    }

    /// The number of calls.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// The time of all calls together.
    #[must_use]
    pub fn time(&self) -> Duration {
        Duration::from_nanos(self.nanoseconds.load(Ordering::Relaxed))
    }

    /// The number of calls that trapped, exceeded a limit or returned an invalid value.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }
}
