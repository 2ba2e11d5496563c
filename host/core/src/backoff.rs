//! Waits that grow while something fails.

use std::time::Duration;

/// Exponential back-off: the delay doubles with every failure, up to a maximum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    base: Duration,
    max: Duration,
}

impl Backoff {
    /// The first delay is `base`; no delay is longer than `max`.
    #[must_use]
    pub const fn new(base: Duration, max: Duration) -> Self {
        Self { base, max }
    }

    /// The delay after the failure number `failure`, counted from 0.
    #[must_use]
    pub fn delay(&self, failure: u32) -> Duration {
        let factor = 1_u32.checked_shl(failure).unwrap_or(u32::MAX);
        self.base.saturating_mul(factor).min(self.max)
    }

    /// [`Backoff::delay`], shortened by up to a quarter at random: callers that failed together do not all try again
    /// together.
    #[must_use]
    pub fn jittered(&self, failure: u32) -> Duration {
        self.delay(failure).mul_f64(0.75 + 0.25 * fastrand::f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_maximum() {
        let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        let delays: Vec<u128> = (0..6).map(|failure| backoff.delay(failure).as_millis()).collect();
        assert_eq!(delays, [100, 200, 400, 800, 1000, 1000]);
        assert_eq!(backoff.delay(u32::MAX), Duration::from_secs(1));
    }

    #[test]
    fn jitter_shortens_by_a_quarter_at_most() {
        let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        for _ in 0..100 {
            let delay = backoff.jittered(1);
            assert!((Duration::from_millis(150)..=Duration::from_millis(200)).contains(&delay), "{delay:?}");
        }
    }
}
