//! A decaying average of measurements that outliers move little.
//!
//! ```
//! use tightwad_plugin_sdk::estimate::Average;
//!
//! let mut time = Average::default();
//! time.observe(10.0, 0.2);
//! // An outlier counts as at most four times the average.
//! let outlier = time.clip(1000.0, 4.0);
//! time.observe(outlier, 0.2);
//! assert_eq!((outlier, time.get()), (40.0, Some(16.0)));
//! ```

/// A decaying average.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Average(Option<f64>);

impl Average {
    /// An average that is expected before any measurement.
    #[must_use]
    pub fn expecting(value: f64) -> Self {
        Self(Some(value))
    }

    /// The average. `None`: nothing was measured or expected.
    #[must_use]
    pub fn get(self) -> Option<f64> {
        self.0
    }

    /// Moves the average by `share` (0 to 1) of its distance to `value`. The first value is the average.
    pub fn observe(&mut self, value: f64, share: f64) {
        self.0 = Some(self.0.map_or(value, |before| before + share * (value - before)));
    }

    /// `value`, but at most `factor` times the average, and at least the average divided by `factor`.
    #[must_use]
    pub fn clip(self, value: f64, factor: f64) -> f64 {
        clip(value, self.0.unwrap_or(value), factor)
    }

    /// Raises the average to `value` if it is lower.
    pub fn raise(&mut self, value: f64) {
        self.0 = Some(self.0.map_or(value, |before| before.max(value)));
    }
}

/// `value`, but at most `factor` times `expected`, and at least `expected` divided by `factor`.
#[must_use]
pub fn clip(value: f64, expected: f64, factor: f64) -> f64 {
    value.clamp(expected / factor, expected * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn average_moves_by_a_share_of_the_distance() {
        let mut average = Average::default();
        assert_eq!(average.get(), None);
        average.observe(8.0, 0.25);
        average.observe(4.0, 0.25);
        assert_eq!(average.get(), Some(7.0));
        average.observe(100.0, 0.0);
        assert_eq!(average.get(), Some(7.0));
        average.observe(3.0, 1.0);
        assert_eq!(average.get(), Some(3.0));
    }

    #[test]
    fn outlier_is_clipped_on_both_sides() {
        let average = Average::expecting(8.0);
        assert_eq!(
            [average.clip(100.0, 4.0), average.clip(1.0, 4.0), average.clip(9.0, 4.0)],
            [32.0, 2.0, 9.0]
        );
        assert_eq!(Average::default().clip(100.0, 4.0), 100.0);
    }

    #[test]
    fn raise_never_lowers_the_average() {
        let mut average = Average::expecting(5.0);
        average.raise(3.0);
        assert_eq!(average.get(), Some(5.0));
        average.raise(6.0);
        assert_eq!(average.get(), Some(6.0));
    }
}
