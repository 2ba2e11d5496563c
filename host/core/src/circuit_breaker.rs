//! When to stop calling something that fails.
//!
//! Invariant: `open_until` is set exactly while the failures in a row reach the threshold.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::backoff::Backoff;
use crate::sync::lock;

/// A circuit breaker. It is closed while calls succeed. Failures in a row open it: calls are refused for a cool-down,
/// then one call finds out whether it can close. Each further failure makes the cool-down longer.
#[derive(Debug)]
pub struct CircuitBreaker {
    threshold: u32,
    cool_down: Backoff,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    failures: u32,
    open_until: Option<Instant>,
}

impl CircuitBreaker {
    /// A closed breaker that `threshold` failures in a row open.
    #[must_use]
    pub const fn new(threshold: u32, cool_down: Backoff) -> Self {
        Self { threshold, cool_down, state: Mutex::new(State { failures: 0, open_until: None }) }
    }

    /// True when a call may be made. After a cool-down that is one call; others wait for its result.
    #[must_use]
    pub fn allows(&self) -> bool {
        let mut state = lock(&self.state);
        match state.open_until {
            None => true,
            Some(until) if Instant::now() < until => false,
            Some(_) => {
                state.open_until = Some(Instant::now() + self.delay(state.failures));
                true
            }
        }
    }

    /// True during a cool-down.
    #[must_use]
    pub fn is_open(&self) -> bool {
        lock(&self.state).open_until.is_some_and(|until| Instant::now() < until)
    }

    /// Records how a call ended.
    pub fn record(&self, succeeded: bool) {
        let mut state = lock(&self.state);
        state.failures = if succeeded { 0 } else { state.failures.saturating_add(1) };
        let open = state.failures >= self.threshold;
        state.open_until = open.then(|| Instant::now() + self.delay(state.failures));
    }

    fn delay(&self, failures: u32) -> Duration {
        self.cool_down.delay(failures.saturating_sub(self.threshold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Backoff = Backoff::new(Duration::from_secs(60), Duration::from_secs(60));

    #[test]
    fn failures_in_a_row_open_it_and_a_success_closes_it() {
        let breaker = CircuitBreaker::new(3, LONG);
        breaker.record(false);
        breaker.record(false);
        breaker.record(true);
        breaker.record(false);
        breaker.record(false);
        assert!(breaker.allows() && !breaker.is_open());
        breaker.record(false);
        assert!(!breaker.allows() && breaker.is_open());
        breaker.record(true);
        assert!(breaker.allows() && !breaker.is_open());
    }

    #[test]
    fn one_call_probes_after_a_cool_down() {
        let breaker = CircuitBreaker::new(1, Backoff::new(Duration::ZERO, Duration::from_secs(60)));
        breaker.record(false);
        assert!(breaker.allows(), "the first cool-down has no length");
        let breaker = CircuitBreaker::new(1, LONG);
        breaker.record(false);
        lock(&breaker.state).open_until = Some(Instant::now());
        assert!(breaker.allows());
        assert!(!breaker.allows(), "others wait for the result of the first");
    }
}
