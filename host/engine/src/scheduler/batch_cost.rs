//! What a shared forward pass costs each request in it.
//!
//! A pass takes a fixed time and a time per row. Each request is charged its own rows, and an equal part of the
//! fixed time. The sum is scaled so that one row costs what it costs alone: a figure measured with the model to
//! oneself also holds in a shared batch, and a draft that pays for one request pays for all of them together.

use std::time::Duration;

use crate::scheduler::calibrate::TOKENS;
use crate::scheduler::stats::Stats;

/// The time of one forward pass, to be attributed to the requests in it.
#[derive(Debug, Default)]
pub(crate) struct BatchCost {
    /// Seconds of the pass.
    took: f64,
    rows: usize,
    /// Sequences that get a token from the pass.
    sequences: usize,
    /// Seconds of one more row.
    row: f64,
}

impl BatchCost {
    /// A pass over `rows` rows, after which `sequences` get a token.
    pub(crate) fn new(took: Duration, rows: usize, sequences: usize, stats: &Stats) -> Self {
        let (one, many) = (stats.token_time().as_secs_f64(), stats.row_time().as_secs_f64());
        let row = (TOKENS as f64 * many - one) / (TOKENS as f64 - 1.0);
        let took = took.as_secs_f64();
        Self { took, rows, sequences, row: row.clamp(0.0, took / rows.max(1) as f64) }
    }

    /// The cost of a call that had `own` of the rows and was answered `elapsed` after it was made. A request
    /// alone in the pass is charged all of that time, except for the rows of other prompts. In a shared pass the
    /// time in which requests wait for each other is charged to no one.
    pub(crate) fn attribute(&self, own: usize, elapsed: Duration) -> Duration {
        let fixed = self.took - self.row * self.rows as f64;
        let share = |rows: usize| fixed / self.sequences.max(1) as f64 + self.row * rows as f64;
        let seconds = if self.sequences <= 1 || share(1) <= 0.0 {
            elapsed.as_secs_f64() + share(own) - self.took
        } else {
            share(own) / share(1) * (fixed + self.row)
        };
        Duration::from_secs_f64(seconds.max(0.0))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;

    #[test]
    fn a_further_row_costs_more_in_a_pass_that_more_requests_share() {
        let stats = Stats {
            token_nanoseconds: AtomicU64::new(10_000_000),
            // Nine rows take 18 ms: one more takes 1 ms.
            row_nanoseconds: AtomicU64::new(2_000_000),
            ..Stats::default()
        };
        let asked = Duration::from_millis(20);
        let charged = |pass: &BatchCost, own| (pass.attribute(own, asked).as_secs_f64() * 1e3).round();
        // The time before and after the pass counts too.
        let alone = BatchCost::new(Duration::from_millis(14), 5, 1, &stats);
        assert_eq!(charged(&alone, 5), 20.0);
        // With six rows of another request's prompt.
        let alone = BatchCost::new(Duration::from_millis(14), 5 + 6, 1, &stats);
        assert_eq!(charged(&alone, 5), 14.0);
        // 9 ms are fixed, 9 ms are the rows of four requests: one row is charged what it takes alone.
        let shared = BatchCost::new(Duration::from_millis(18), 9, 4, &stats);
        assert_eq!(charged(&shared, 1), 10.0);
        // Five more rows are 5 ms of the 3.25 + 5 that are this one's.
        assert_eq!(charged(&shared, 6), (10.0_f64 * 8.25 / 3.25).round());
    }
}
