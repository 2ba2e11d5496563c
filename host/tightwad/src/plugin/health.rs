//! When to leave a plugin alone.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Failures in a row after which a plugin is left alone.
const FAILURES: u32 = 5;
/// For how long.
const PAUSE: Duration = Duration::from_secs(30);

/// How a plugin has done lately: one that always fails is not tried with every request.
#[derive(Debug, Default)]
pub struct Health(Mutex<(u32, Option<Instant>)>);

impl Health {
    /// True when the plugin may be tried.
    #[must_use]
    pub fn allows(&self) -> bool {
        let (_, failed) = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        failed.is_none_or(|since| since.elapsed() > PAUSE)
    }

    /// Notes how a run ended.
    pub fn note(&self, succeeded: bool) {
        let mut health = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let failures = if succeeded { 0 } else { health.0 + 1 };
        *health = (failures, (failures >= FAILURES).then(Instant::now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_failures_in_a_row_pause_a_plugin_and_a_success_forgets_them() {
        let health = Health::default();
        for _ in 0..FAILURES - 1 {
            health.note(false);
        }
        health.note(true);
        for _ in 0..FAILURES - 1 {
            health.note(false);
        }
        assert!(health.allows());
        health.note(false);
        assert!(!health.allows());
    }
}
