//! Whose a pass was: a draft costs the time of its own rows, and they cost it whoever else is in the pass.
//!
//! What a pass takes in any case is everyone's in equal parts, so that a draft that is worth its time to the one
//! request is worth it to all of them together. What comes of that is told in the time of a request that has the
//! model for itself: one row takes what it takes alone, and a further one the more, the more of them share a pass.
//! So what was measured alone holds in company, and the other way round.

use std::time::Duration;

use super::Stats;
use super::calibrate::TOKENS;

/// A pass, and those who were in it.
#[derive(Debug, Default)]
pub(super) struct Pass {
    took: f64,
    rows: usize,
    sequences: usize,
    /// Seconds of one more row.
    row: f64,
}

impl Pass {
    /// A pass over `rows` rows, after which `sequences` get a token.
    pub(super) fn new(took: Duration, rows: usize, sequences: usize, stats: &Stats) -> Self {
        let (one, many) = (stats.token_time().as_secs_f64(), stats.row_time().as_secs_f64());
        let row = (TOKENS as f64 * many - one) / (TOKENS as f64 - 1.0);
        let took = took.as_secs_f64();
        Self { took, rows, sequences, row: row.clamp(0.0, took / rows.max(1) as f64) }
    }

    /// Seconds to add to the time since `asked` for what the sequence that had `own` of the rows is charged.
    /// It waits for others' passes, and they for it: that is nobody's; alone all of the time is its own, but for
    /// rows of others' prompts.
    pub(super) fn correction(&self, own: usize, asked: Duration) -> f64 {
        let always = self.took - self.row * self.rows as f64;
        let charged = |rows: usize| always / self.sequences.max(1) as f64 + self.row * rows as f64;
        if self.sequences <= 1 || charged(1) <= 0.0 {
            return charged(own) - self.took;
        }
        charged(own) / charged(1) * (always + self.row) - asked.as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;

    #[test]
    fn further_rows_cost_the_more_the_more_share_a_pass() {
        let stats = Stats {
            token_nanoseconds: AtomicU64::new(10_000_000),
            // Nine rows take 18 ms: one more takes 1 ms.
            row_nanoseconds: AtomicU64::new(2_000_000),
            ..Stats::default()
        };
        let asked = Duration::from_millis(20);
        let charged = |pass: &Pass, own| (20.0 + pass.correction(own, asked) * 1e3).round();
        // What is not of the pass is one's own, too.
        let alone = Pass::new(Duration::from_millis(14), 5, 1, &stats);
        assert_eq!(charged(&alone, 5), 20.0);
        // With six rows of someone's prompt.
        let alone = Pass::new(Duration::from_millis(14), 5 + 6, 1, &stats);
        assert_eq!(charged(&alone, 5), 14.0);
        // 9 ms for nobody's rows, 9 for those of four: one row is charged what it takes alone.
        let shared = Pass::new(Duration::from_millis(18), 9, 4, &stats);
        assert_eq!(charged(&shared, 1), 10.0);
        // Five more rows are 5 ms of the 3.25 + 5 that are this one's.
        assert_eq!(charged(&shared, 6), (10.0_f64 * 8.25 / 3.25).round());
    }
}
