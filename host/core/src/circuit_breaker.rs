//! Stops calls to a party that keeps failing.
//!
//! Invariant: `open_until` is set exactly while the consecutive failures reach the threshold.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::backoff::Backoff;
use crate::sync::lock;

/// A circuit breaker. Consecutive failures open the breaker, and an open breaker refuses calls for a cooldown.
///
/// After the cooldown the breaker allows one call. A success closes the breaker; a failure starts a longer cooldown.
#[derive(Debug)]
pub struct CircuitBreaker {
    threshold: u32,
    cooldown: Backoff,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    consecutive_failures: u32,
    open_until: Option<Instant>,
}

impl CircuitBreaker {
    /// A closed breaker, which opens after `threshold` consecutive failures.
    #[must_use]
    pub const fn new(threshold: u32, cooldown: Backoff) -> Self {
        Self { threshold, cooldown, state: Mutex::new(State { consecutive_failures: 0, open_until: None }) }
    }

    /// True when the breaker allows a call.
    ///
    /// After a cooldown the breaker allows one call. The breaker refuses further calls until [`Self::record`] receives
    /// the result of that call, or until another cooldown ends.
    #[must_use]
    pub fn allows(&self) -> bool {
        let mut state = lock(&self.state);
        match state.open_until {
            None => true,
            Some(until) if Instant::now() < until => false,
            Some(_) => {
                state.open_until = Some(Instant::now() + self.delay(state.consecutive_failures));
                true
            }
        }
    }

    /// True during a cooldown.
    #[must_use]
    pub fn is_open(&self) -> bool {
        lock(&self.state).open_until.is_some_and(|until| Instant::now() < until)
    }

    /// Records the result of a call.
    pub fn record(&self, succeeded: bool) {
        let mut state = lock(&self.state);
        state.consecutive_failures = if succeeded { 0 } else { state.consecutive_failures.saturating_add(1) };
        let open = state.consecutive_failures >= self.threshold;
        state.open_until = open.then(|| Instant::now() + self.delay(state.consecutive_failures));
    }

    fn delay(&self, failures: u32) -> Duration {
        self.cooldown.delay(failures.saturating_sub(self.threshold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG_COOLDOWN: Backoff = Backoff::new(Duration::from_secs(60), Duration::from_secs(60));

    #[test]
    fn breaker_opens_after_consecutive_failures_and_closes_after_a_success() {
        let breaker = CircuitBreaker::new(3, LONG_COOLDOWN);
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
    fn breaker_allows_one_call_after_a_cooldown() {
        let breaker = CircuitBreaker::new(1, Backoff::new(Duration::ZERO, Duration::from_secs(60)));
        breaker.record(false);
        assert!(breaker.allows(), "the first cooldown has no length");
        let breaker = CircuitBreaker::new(1, LONG_COOLDOWN);
        breaker.record(false);
        lock(&breaker.state).open_until = Some(Instant::now());
        assert!(breaker.allows());
        assert!(!breaker.allows(), "another call waits for the result of the first");
    }
}
