//! The clock that times calls.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The system's clock, or the clock of a test. Cheap to clone.
#[derive(Clone, Default)]
pub struct Clock(Option<Arc<dyn Fn() -> Instant + Send + Sync>>);

impl Clock {
    /// A clock that reads `now`.
    #[must_use]
    pub fn from_fn(now: impl Fn() -> Instant + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(now)))
    }

    /// The current time.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.0.as_ref().map_or_else(Instant::now, |now| now())
    }

    /// The time since `start`.
    #[must_use]
    pub fn since(&self, start: Instant) -> Duration {
        self.now().saturating_duration_since(start)
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(if self.0.is_some() { "Clock(test)" } else { "Clock" })
    }
}
