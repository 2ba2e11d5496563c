//! The download rate of a peer: a moving average over its fetches.

use tightwad_plugin_sdk::estimate::Average;

const NANOSECONDS_PER_SECOND: f64 = 1e9;
/// The weight of a complete piece against all earlier fetches.
const UPDATE_RATE: f64 = 0.3;

/// The bytes per second of all fetches from one peer together.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Rate(Average);

impl Rate {
    /// The average. `None`: unknown.
    #[must_use]
    pub fn bytes_per_second(self) -> Option<f64> {
        self.0.get()
    }

    /// Learns from a fetch that brought `bytes` in `time` nanoseconds, with `concurrency` fetches in flight from the
    /// peer. `share` is the weight of the result, 0 to 1.
    pub fn learn(&mut self, bytes: u64, time: u64, concurrency: f64, share: f64) {
        // Times below a microsecond are not measurable.
        let measured = bytes as f64 * NANOSECONDS_PER_SECOND / time.max(1000) as f64 * concurrency;
        self.0.observe(measured, UPDATE_RATE * share.clamp(0.0, 1.0));
    }
}

/// The typical rate: the upper median. Of two peers with different rates, the slower one is the exception.
#[must_use]
pub fn typical(mut rates: Vec<f64>) -> Option<f64> {
    let middle = rates.len() / 2;
    if rates.is_empty() {
        return None;
    }
    Some(*rates.select_nth_unstable_by(middle, f64::total_cmp).1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_moves_towards_measurements() {
        let mut rate = Rate::default();
        assert_eq!(rate.bytes_per_second(), None);
        rate.learn(1000, 500_000_000, 2.0, 1.0);
        assert_eq!(rate.bytes_per_second(), Some(4000.0));
        rate.learn(0, 1_000_000_000, 1.0, 1.0);
        assert_eq!(rate.bytes_per_second(), Some(2800.0));
        rate.learn(0, 1_000_000_000, 1.0, 0.0);
        assert_eq!(rate.bytes_per_second(), Some(2800.0));
        rate.learn(1, 0, 1.0, 1.0);
        assert!(rate.bytes_per_second().is_some_and(f64::is_finite));
    }

    #[test]
    fn typical_rate_of_two_is_the_faster_one() {
        assert_eq!(typical(Vec::new()), None);
        assert_eq!(typical(vec![1.0, 100.0]), Some(100.0));
        assert_eq!(typical(vec![90.0, 1.0, 100.0]), Some(90.0));
    }
}
