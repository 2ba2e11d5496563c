//! Whose a pass was: a draft costs the time of its own rows, and they cost it whoever else is in the pass.
//!
//! What a pass takes in any case is everyone's in equal parts, so that a draft that is worth its time to the one
//! request is worth it to all of them together.

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

    /// What of the time since `asked` was not spent on the sequence that had `own` of the rows. It waits for
    /// others' passes, and they for it: that is nobody's, but alone all of the time is its own.
    pub(super) fn others(&self, own: usize, asked: Duration) -> Duration {
        let always = self.took - self.row * self.rows as f64;
        let share = always / self.sequences.max(1) as f64 + self.row * own as f64;
        let all = if self.sequences > 1 { asked.as_secs_f64() } else { self.took };
        Duration::from_secs_f64((all - share).max(0.0))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;

    #[test]
    fn a_pass_is_shared_out_and_alone_it_is_ones_own() {
        let stats = Stats {
            token_nanoseconds: AtomicU64::new(10_000_000),
            // Nine rows take 18 ms: one more takes 1 ms.
            row_nanoseconds: AtomicU64::new(2_000_000),
            ..Stats::default()
        };
        let milliseconds = |time: Duration| (time.as_secs_f64() * 1e3).round();
        let alone = Pass::new(Duration::from_millis(14), 5, 1, &stats);
        let asked = Duration::from_millis(20);
        assert_eq!(milliseconds(alone.others(5, asked)), 0.0);
        // 9 ms for nobody's rows, 9 for those of four.
        let shared = Pass::new(Duration::from_millis(18), 9, 4, &stats);
        let own: f64 =
            [1, 1, 1, 6].map(|own| 20.0 - shared.others(own, asked).as_secs_f64() * 1e3).iter().sum();
        assert!((own - 18.0).abs() < 0.01, "{own}");
        assert_eq!(milliseconds(shared.others(6, asked)), 12.0);
    }
}
