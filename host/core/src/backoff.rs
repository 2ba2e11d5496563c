//! Growing delays between attempts.

use std::time::Duration;

/// Exponential backoff: the delay doubles with every failure, up to a maximum.
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

    /// [`Backoff::delay`], shortened by a random part of up to a quarter. Callers that failed together then do not all
    /// try again at the same time.
    #[must_use]
    pub fn jittered_delay(&self, failure: u32) -> Duration {
        self.delay(failure).mul_f64(0.75 + 0.25 * fastrand::f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delay_doubles_up_to_the_maximum() {
        let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        let delays: Vec<u128> = (0..6).map(|failure| backoff.delay(failure).as_millis()).collect();
        assert_eq!(delays, [100, 200, 400, 800, 1000, 1000]);
        assert_eq!(backoff.delay(u32::MAX), Duration::from_secs(1));
    }

    #[test]
    fn jitter_shortens_the_delay_by_at_most_a_quarter() {
        let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        for _ in 0..100 {
            let delay = backoff.jittered_delay(1);
            assert!((Duration::from_millis(150)..=Duration::from_millis(200)).contains(&delay), "{delay:?}");
        }
    }
}
