//! When to leave a node alone.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Failures in a row after which a node is left alone.
const FAILURES: u32 = 3;
/// For how long, first and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(2));

/// A circuit breaker: closed while the node answers; open for growing pauses while it does not, and
/// after each of them one call finds out.
#[derive(Debug, Default)]
pub(super) struct Breaker(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    failures: u32,
    until: Option<Instant>,
}

impl Breaker {
    /// True when a call may be made. After a pause that is one call: others wait for what it finds.
    pub(super) fn allows(&self) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match state.until {
            None => true,
            Some(until) if Instant::now() < until => false,
            Some(_) => {
                state.until = Some(Instant::now() + pause(state.failures));
                true
            }
        }
    }

    /// True while the node is left alone.
    pub(super) fn is_open(&self) -> bool {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.until.is_some_and(|until| Instant::now() < until)
    }

    /// Notes how a call ended.
    pub(super) fn note(&self, answered: bool) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.failures = if answered { 0 } else { state.failures + 1 };
        state.until = (state.failures >= FAILURES).then(|| Instant::now() + pause(state.failures));
    }
}

fn pause(failures: u32) -> Duration {
    let doubled = failures.saturating_sub(FAILURES).min(10);
    (PAUSE.0 * 2_u32.pow(doubled)).min(PAUSE.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_after_failures_in_a_row_and_closes_with_an_answer() {
        let breaker = Breaker::default();
        breaker.note(false);
        breaker.note(false);
        assert!(breaker.allows());
        breaker.note(false);
        assert!(!breaker.allows());
        breaker.note(true);
        assert!(breaker.allows());
    }

    #[test]
    fn pauses_grow_up_to_a_limit() {
        assert!(pause(FAILURES) < pause(FAILURES + 2));
        assert_eq!(pause(60), PAUSE.1);
    }
}
