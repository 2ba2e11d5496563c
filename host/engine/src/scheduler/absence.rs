//! How long a session takes from an answer to its next work.

use std::time::{Duration, Instant};

/// What one absence counts in the average.
const NEW: f64 = 0.25;
/// Whoever is away longer than this many times the average does not come back soon; nor does one that takes
/// longer than `LEAST` of the most that is waited, where that is more.
const PATIENCE: f64 = 3.0;
const LEAST: f64 = 0.4;

/// The absences of one session.
#[derive(Debug, Default)]
pub(crate) struct Absence {
    since: Option<Instant>,
    /// Seconds, on average; nothing before the first.
    usual: Option<f64>,
}

impl Absence {
    /// The session was answered.
    pub(crate) fn begins(&mut self) {
        self.since = Some(Instant::now());
    }

    /// It has had new work since `then`, which may have waited for a pass of others to end.
    pub(crate) fn over(&mut self, then: Instant) {
        if let Some(since) = self.since.take() {
            let seconds = then.saturating_duration_since(since).as_secs_f64();
            let usual = self.usual.unwrap_or(seconds);
            self.usual = Some(usual + NEW * (seconds - usual));
        }
    }

    /// Until when it can be expected back, if it usually is within `most`, and still can be.
    pub(crate) fn ends(&self, most: Duration) -> Option<Instant> {
        let most = most.as_secs_f64();
        let usual = self.usual.unwrap_or(most);
        if usual > most {
            return None;
        }
        let ends = self.since? + Duration::from_secs_f64((PATIENCE * usual).clamp(LEAST * most, most));
        (ends > Instant::now()).then_some(ends)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_usually_stays_away_is_not_waited_for() {
        let most = Duration::from_secs(60);
        let mut quick = Absence::default();
        assert_eq!(quick.ends(most), None);
        quick.begins();
        assert!(quick.ends(most).is_some());
        quick.over(Instant::now());
        assert_eq!(quick.ends(most), None);
        let slow = Absence { since: Some(Instant::now()), usual: Some(61.0) };
        assert_eq!(slow.ends(most), None);
        let late = Absence { since: Instant::now().checked_sub(most), usual: Some(1.0) };
        assert_eq!(late.ends(most), None);
    }
}
