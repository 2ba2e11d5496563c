//! Attributes the cost of a shared forward pass to the requests in it.
//!
//! A pass takes a fixed time and a time per row. Each request pays for its own rows and for an equal part of
//! the fixed time. The sum is scaled so that one row costs as much as in a pass of its own. A cost curve
//! measured with one request therefore holds under load. A draft that pays off for one request pays off for
//! all requests.

use std::time::Duration;

use crate::scheduler::calibrate::CALIBRATION_TOKENS;
use crate::scheduler::stats::Stats;

/// The time of one forward pass, ready to be attributed.
#[derive(Debug, Default)]
pub(crate) struct BatchCost {
    /// Duration of the pass.
    elapsed_seconds: f64,
    rows: usize,
    /// Sequences that get a token from the pass.
    sequences: usize,
    /// Duration of one additional row.
    seconds_per_row: f64,
}

impl BatchCost {
    /// A pass over `rows` rows that took `elapsed` and gives a token to `sequences` sequences.
    pub(crate) fn new(elapsed: Duration, rows: usize, sequences: usize, stats: &Stats) -> Self {
        let (single, batched) = (stats.time_per_token().as_secs_f64(), stats.time_per_row().as_secs_f64());
        let seconds_per_row =
            (CALIBRATION_TOKENS as f64 * batched - single) / (CALIBRATION_TOKENS as f64 - 1.0);
        let elapsed_seconds = elapsed.as_secs_f64();
        let seconds_per_row = seconds_per_row.clamp(0.0, elapsed_seconds / rows.max(1) as f64);
        Self { elapsed_seconds, rows, sequences, seconds_per_row }
    }

    /// The cost of a call with `own_rows` rows whose reply came `elapsed` after the request. A request alone
    /// in the pass pays for `elapsed`, except for the prefill rows of other requests. In a shared pass, no
    /// request pays for the time spent waiting for other requests' passes.
    pub(crate) fn attribute(&self, own_rows: usize, elapsed: Duration) -> Duration {
        let fixed = self.elapsed_seconds - self.seconds_per_row * self.rows as f64;
        let share = |rows: usize| fixed / self.sequences.max(1) as f64 + self.seconds_per_row * rows as f64;
        let seconds = if self.sequences <= 1 || share(1) <= 0.0 {
            elapsed.as_secs_f64() + share(own_rows) - self.elapsed_seconds
        } else {
            share(own_rows) / share(1) * (fixed + self.seconds_per_row)
        };
        Duration::from_secs_f64(seconds.max(0.0))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;

    #[test]
    fn attributed_row_cost_grows_with_the_requests_in_the_pass() {
        let stats = Stats {
            time_per_token_ns: AtomicU64::new(10_000_000),
            // Nine rows take 18 ms: one more takes 1 ms.
            time_per_row_ns: AtomicU64::new(2_000_000),
            ..Stats::default()
        };
        let elapsed = Duration::from_millis(20);
        let charged =
            |pass: &BatchCost, own_rows| (pass.attribute(own_rows, elapsed).as_secs_f64() * 1e3).round();
        // The time before and after the pass counts too.
        let alone = BatchCost::new(Duration::from_millis(14), 5, 1, &stats);
        assert_eq!(charged(&alone, 5), 20.0);
        // Six more rows belong to another request's prompt.
        let alone = BatchCost::new(Duration::from_millis(14), 5 + 6, 1, &stats);
        assert_eq!(charged(&alone, 5), 14.0);
        // The fixed time is 9 ms, and the nine rows of four requests take 9 ms. One row costs as much as
        // alone.
        let shared = BatchCost::new(Duration::from_millis(18), 9, 4, &stats);
        assert_eq!(charged(&shared, 1), 10.0);
        // Five more rows take 5 ms of this request's share of 3.25 ms + 5 ms.
        assert_eq!(charged(&shared, 6), (10.0_f64 * 8.25 / 3.25).round());
    }
}
