//! How fast a peer is: a moving average over its fetches.

use tightwad_plugin_sdk::estimate::Average;

const NANOSECONDS: f64 = 1e9;
/// What a whole piece weighs against all before it.
const WEIGHT: f64 = 0.3;

/// Bytes a second of all fetches from one peer together.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Rate(Average);

impl Rate {
    /// The average; `None`: nothing is known.
    #[must_use]
    pub fn bytes_a_second(self) -> Option<f64> {
        self.0.get()
    }

    /// Learns from a fetch that brought `bytes` in `time` nanoseconds while `lanes` fetches shared the way.
    /// `share`: how much of what could be learnt it shows, from 0 to 1.
    pub fn learn(&mut self, bytes: u64, time: u64, lanes: f64, share: f64) {
        // Less than a microsecond is no time that could have been measured.
        let seen = bytes as f64 * NANOSECONDS / time.max(1000) as f64 * lanes;
        self.0.observe(seen, WEIGHT * share.clamp(0.0, 1.0));
    }
}

/// The rate of the usual peer: the upper median, as one slow peer of two is the slow one.
#[must_use]
pub fn usual(mut rates: Vec<f64>) -> Option<f64> {
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
    fn an_average_moves_with_what_was_seen() {
        let mut rate = Rate::default();
        assert_eq!(rate.bytes_a_second(), None);
        rate.learn(1000, 500_000_000, 2.0, 1.0);
        assert_eq!(rate.bytes_a_second(), Some(4000.0));
        rate.learn(0, 1_000_000_000, 1.0, 1.0);
        assert_eq!(rate.bytes_a_second(), Some(2800.0));
        rate.learn(0, 1_000_000_000, 1.0, 0.0);
        assert_eq!(rate.bytes_a_second(), Some(2800.0));
        rate.learn(1, 0, 1.0, 1.0);
        assert!(rate.bytes_a_second().is_some_and(f64::is_finite));
    }

    #[test]
    fn of_two_the_faster_one_is_usual() {
        assert_eq!(usual(Vec::new()), None);
        assert_eq!(usual(vec![1.0, 100.0]), Some(100.0));
        assert_eq!(usual(vec![90.0, 1.0, 100.0]), Some(90.0));
    }
}
