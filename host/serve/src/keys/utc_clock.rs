//! The clock of days, expiries and limits.

use std::sync::Arc;

use time::OffsetDateTime;

/// The system's calendar time in UTC, or the clock of a test. Cheap to clone.
///
/// Limits need the calendar, because they continue after a restart of the host.
#[derive(Clone, Default)]
pub(crate) struct UtcClock(Option<Arc<dyn Fn() -> OffsetDateTime + Send + Sync>>);

impl UtcClock {
    /// A clock that reads `now`.
    #[cfg(test)]
    pub(crate) fn from_fn(now: impl Fn() -> OffsetDateTime + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(now)))
    }

    /// The current time.
    pub(crate) fn now(&self) -> OffsetDateTime {
        self.0.as_ref().map_or_else(OffsetDateTime::now_utc, |now| now())
    }
}
