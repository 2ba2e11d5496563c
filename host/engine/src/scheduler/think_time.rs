//! The think time of a session: the time from a reply to the session's next work.

use std::time::{Duration, Instant};

/// Weight of a new think time in the mean.
const SAMPLE_WEIGHT: f64 = 0.25;
/// The scheduler gives up waiting after this many mean think times.
const GIVE_UP_FACTOR: f64 = 3.0;
/// The scheduler does not give up before this share of the maximum wait.
const MIN_WAIT_SHARE: f64 = 0.4;

/// The think times of one session.
#[derive(Debug, Default)]
pub(crate) struct ThinkTime {
    /// Time of the last reply; `None` while the session has work.
    replied_at: Option<Instant>,
    /// Mean in seconds; `None` before the first think time.
    mean_seconds: Option<f64>,
}

impl ThinkTime {
    /// Starts a think time: the session received a reply.
    pub(crate) fn on_reply(&mut self) {
        self.replied_at = Some(Instant::now());
    }

    /// Ends the think time at `sent_at`, the time at which the session sent new work. The work may have waited for
    /// a pass of other sessions since then.
    pub(crate) fn on_request(&mut self, sent_at: Instant) {
        if let Some(replied_at) = self.replied_at.take() {
            let seconds = sent_at.saturating_duration_since(replied_at).as_secs_f64();
            let mean = self.mean_seconds.unwrap_or(seconds);
            self.mean_seconds = Some(mean + SAMPLE_WEIGHT * (seconds - mean));
        }
    }

    /// The latest time at which the scheduler waits for the session. `None` if the session has work, if its
    /// mean think time exceeds `max_wait`, or if the session is late already.
    pub(crate) fn deadline(&self, max_wait: Duration) -> Option<Instant> {
        let max_wait = max_wait.as_secs_f64();
        let mean = self.mean_seconds.unwrap_or(max_wait);
        if mean > max_wait {
            return None;
        }
        let wait = (GIVE_UP_FACTOR * mean).clamp(MIN_WAIT_SHARE * max_wait, max_wait);
        let deadline = self.replied_at? + Duration::from_secs_f64(wait);
        (deadline > Instant::now()).then_some(deadline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadline_is_none_for_slow_and_late_sessions() {
        let max_wait = Duration::from_secs(60);
        let mut quick = ThinkTime::default();
        assert_eq!(quick.deadline(max_wait), None);
        quick.on_reply();
        assert!(quick.deadline(max_wait).is_some());
        quick.on_request(Instant::now());
        assert_eq!(quick.deadline(max_wait), None);
        let slow = ThinkTime { replied_at: Some(Instant::now()), mean_seconds: Some(61.0) };
        assert_eq!(slow.deadline(max_wait), None);
        let late = ThinkTime { replied_at: Instant::now().checked_sub(max_wait), mean_seconds: Some(1.0) };
        assert_eq!(late.deadline(max_wait), None);
    }
}
