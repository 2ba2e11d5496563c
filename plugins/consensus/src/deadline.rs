//! The limits of a race, learned from the times of earlier drafts.
//!
//! Invariant: a race waits for a much slower or missing drafter no longer than the grace period.

use tightwad_plugin_sdk::estimate::Average;
use tightwad_plugin_sdk::{DrafterFacts, RaceDraft, RaceLimits};

/// The least weight of a new measurement against all earlier ones.
const MIN_UPDATE_RATE: f64 = 0.2;
/// Measurements after which outliers are clipped.
const WARM_UP_MEASUREMENTS: u32 = 3;
/// A clipped measurement is at most the expected time times this, and at least the expected time divided by this.
const MAX_OUTLIER_FACTOR: f64 = 4.0;
/// The grace period after the quorum, in typical times.
const GRACE_FACTOR: f64 = 1.0;
/// The least grace period: timers and threads are not more precise.
const MIN_GRACE_NANOSECONDS: f64 = 2e6;
/// The timeout of a race, in typical times.
const TIMEOUT_FACTOR: f64 = 10.0;
/// The least timeout. A pause of the machine may take this long and is not a failure.
const MIN_TIMEOUT_NANOSECONDS: f64 = 1e8;
/// The least timeout before the first draft of a request.
const MIN_FIRST_TIMEOUT_NANOSECONDS: f64 = 2e9;
/// A drafter that takes longer than this many typical times is a straggler: the quorum does not count it.
const STRAGGLER_FACTOR: f64 = 8.0;
/// The quorum does not count a drafter that missed this many races in a row.
const MAX_MISSED_RACES: u32 = 2;
/// Faster drafters compute next to nothing. Their times say nothing about drafters that compute.
const FREE_BELOW_NANOSECONDS: f64 = 1e6;

/// The time until a drafter's reply.
#[derive(Debug, Clone, Default)]
struct ReplyTime {
    /// Nanoseconds; 0: unknown, or next to nothing.
    expected: Average,
    measured: u32,
    /// Nanoseconds that its first draft in this request takes in addition: it processes the prompt.
    startup: f64,
    /// Missed races in a row.
    missed: u32,
    /// The drafter was never opened, and is never asked.
    unavailable: bool,
}

impl ReplyTime {
    fn next_reply(&self) -> f64 {
        self.expected() + self.startup
    }

    fn expected(&self) -> f64 {
        self.expected.get().unwrap_or(0.0)
    }

    fn record_reply(&mut self, nanoseconds: f64) {
        let startup = std::mem::take(&mut self.startup);
        let mut time = (nanoseconds - startup).max(0.0);
        if self.measured >= WARM_UP_MEASUREMENTS && self.expected() > 0.0 {
            time = self.expected.clip(time, MAX_OUTLIER_FACTOR);
        }
        self.measured += 1;
        self.expected.observe(time, MIN_UPDATE_RATE.max(1.0 / f64::from(self.measured)));
        self.missed = 0;
    }

    /// Records a reply later than `nanoseconds`. Its exact time stays unknown.
    fn record_late(&mut self, nanoseconds: f64) {
        self.expected.raise(nanoseconds - self.startup);
        self.missed = self.missed.saturating_add(1);
    }
}

/// The reply times of all drafters.
#[derive(Debug, Clone)]
pub struct Deadlines {
    reply_times: Vec<ReplyTime>,
    is_first_race: bool,
}

impl Deadlines {
    /// Creates the times that the host expects for drafts of `max_draft_tokens` tokens.
    #[must_use]
    pub fn expecting(facts: &[DrafterFacts], max_draft_tokens: u32) -> Self {
        let reply_time = |facts: &DrafterFacts| ReplyTime {
            expected: Average::expecting(
                facts.round_trip as f64 + facts.time_per_token as f64 * f64::from(max_draft_tokens),
            ),
            startup: facts.startup as f64,
            missed: if facts.unavailable { MAX_MISSED_RACES } else { 0 },
            unavailable: facts.unavailable,
            ..ReplyTime::default()
        };
        Self { reply_times: facts.iter().map(reply_time).collect(), is_first_race: true }
    }

    /// The limits of the next race for `quorum` drafts.
    #[must_use]
    pub fn limits(&self, quorum: usize) -> RaceLimits {
        let times = self.expected_times();
        let typical = typical(&times);
        let straggler = (STRAGGLER_FACTOR * typical).max(MIN_GRACE_NANOSECONDS);
        let prompt = times.iter().filter(|time| **time <= straggler).count();
        let min_timeout =
            if self.is_first_race { MIN_FIRST_TIMEOUT_NANOSECONDS } else { MIN_TIMEOUT_NANOSECONDS };
        RaceLimits {
            quorum: quorum.min(prompt).max(1) as u32,
            grace_period: (GRACE_FACTOR * typical).max(MIN_GRACE_NANOSECONDS) as u64,
            timeout: (TIMEOUT_FACTOR * typical).max(min_timeout) as u64,
        }
    }

    /// The expected times of the drafters that come to races. If none does, the times of all drafters.
    fn expected_times(&self) -> Vec<f64> {
        let comes = |reply_time: &ReplyTime| reply_time.missed < MAX_MISSED_RACES;
        let any = self.reply_times.iter().any(comes);
        self.reply_times.iter().filter(|time| !any || comes(time)).map(ReplyTime::next_reply).collect()
    }

    /// Records a race that took `nanoseconds` and brought these drafts.
    pub fn record_race(&mut self, drafts: &[RaceDraft], nanoseconds: u64) {
        for (index, time) in self.reply_times.iter_mut().enumerate().filter(|(_, time)| !time.unavailable) {
            match drafts.iter().find(|race| race.drafter as usize == index) {
                Some(race) => time.record_reply(race.draft.elapsed as f64),
                None => time.record_late(nanoseconds as f64),
            }
        }
        self.is_first_race &= drafts.is_empty();
    }

    /// Numbers of the saved state, one per drafter.
    pub(crate) fn saved_numbers(&self) -> impl Iterator<Item = f64> {
        self.reply_times.iter().map(|time| if time.measured > 0 { time.expected() } else { 0.0 })
    }

    /// Restores a drafter's time. A measurement of an earlier request replaces the host's expectation.
    pub(crate) fn restore_time(&mut self, drafter: usize, nanoseconds: f64) {
        if let Some(reply_time) = self.reply_times.get_mut(drafter).filter(|_| nanoseconds > 0.0) {
            (reply_time.expected, reply_time.measured) = (Average::expecting(nanoseconds), 1);
        }
    }
}

/// The lower median of the drafters that compute. Of two drafters, the faster one sets the measure.
fn typical(times: &[f64]) -> f64 {
    let mut times = times.to_vec();
    times.sort_by(f64::total_cmp);
    let free = times.iter().take_while(|time| **time < FREE_BELOW_NANOSECONDS).count();
    let computing = &times[free..];
    computing.get(computing.len().saturating_sub(1) / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tightwad_plugin_sdk::Draft;

    const MS: u64 = 1_000_000;

    fn facts(startup: u64, time_per_token: u64, round_trip: u64) -> DrafterFacts {
        let (name, shares_processor, unavailable) = (String::new(), false, false);
        DrafterFacts { name, unavailable, shares_processor, startup, time_per_token, round_trip }
    }

    fn drafts(times: &[(u32, u64)]) -> Vec<RaceDraft> {
        let draft = |(drafter, ms): &(u32, u64)| RaceDraft {
            drafter: *drafter,
            draft: Draft { proposals: Vec::new(), elapsed: ms * MS },
        };
        times.iter().map(draft).collect()
    }

    fn unknown(drafters: usize) -> Deadlines {
        Deadlines::expecting(&vec![facts(0, 0, 0); drafters], 16)
    }

    #[test]
    fn unknown_drafters_get_a_long_first_timeout() {
        let limits = unknown(3).limits(2);
        assert_eq!((limits.quorum, limits.grace_period, limits.timeout), (2, 2 * MS, 2000 * MS));
    }

    #[test]
    fn expectations_come_from_the_host_then_from_measurements() {
        let mut deadlines =
            Deadlines::expecting(&[facts(500 * MS, MS, 4 * MS), facts(500 * MS, MS, 4 * MS)], 16);
        assert_eq!(deadlines.limits(2).grace_period, 520 * MS, "the prompt comes first");
        deadlines.record_race(&drafts(&[(0, 510), (1, 510)]), 510 * MS);
        assert_eq!(deadlines.limits(2).grace_period, 10 * MS);
        for _ in 0..20 {
            deadlines.record_race(&drafts(&[(0, 30), (1, 30)]), 30 * MS);
        }
        let limits = deadlines.limits(2);
        assert!((29 * MS..=30 * MS).contains(&limits.grace_period), "{}", limits.grace_period);
        assert!((290 * MS..=300 * MS).contains(&limits.timeout), "{}", limits.timeout);
    }

    #[test]
    fn straggler_does_not_delay_a_race_of_two() {
        let mut deadlines = unknown(2);
        deadlines.record_race(&drafts(&[(0, 20), (1, 400)]), 400 * MS);
        let limits = deadlines.limits(2);
        assert_eq!((limits.quorum, limits.grace_period), (1, 20 * MS));
        // The quorum counts it again as soon as it keeps up.
        deadlines.record_race(&drafts(&[(0, 20), (1, 25)]), 25 * MS);
        assert_eq!(deadlines.limits(2).quorum, 1, "not at once");
        for _ in 0..10 {
            deadlines.record_race(&drafts(&[(0, 20), (1, 25)]), 25 * MS);
        }
        assert_eq!(deadlines.limits(2).quorum, 2);
    }

    #[test]
    fn quorum_leaves_out_a_drafter_that_misses_races() {
        let mut deadlines = unknown(3);
        deadlines.record_race(&drafts(&[(0, 20), (1, 20), (2, 20)]), 20 * MS);
        assert_eq!(deadlines.limits(3).quorum, 3);
        deadlines.record_race(&drafts(&[(0, 20), (1, 20)]), 200 * MS);
        deadlines.record_race(&drafts(&[(0, 20), (1, 20)]), 20 * MS);
        assert_eq!(deadlines.limits(3).quorum, 2);
        // If no drafter replies, the timeout does not shrink: otherwise no drafter could ever reply again.
        deadlines.record_race(&[], 200 * MS);
        deadlines.record_race(&[], 0);
        assert!(deadlines.limits(2).timeout >= 2000 * MS);
        deadlines.record_race(&drafts(&[(0, 20), (1, 20), (2, 20)]), 20 * MS);
        assert_eq!(deadlines.limits(3).quorum, 3, "they are back");
    }

    #[test]
    fn free_drafters_do_not_set_the_typical_time() {
        let all = [facts(0, 0, 0), facts(0, 2 * MS, 8 * MS), facts(0, 3 * MS, 2 * MS)];
        let limits = Deadlines::expecting(&all, 16).limits(3);
        assert_eq!((limits.quorum, limits.grace_period), (3, 40 * MS));
        assert_eq!(Deadlines::expecting(&all[..1], 16).limits(1).quorum, 1);
    }

    #[test]
    fn outlier_moves_a_known_time_little() {
        let mut deadlines = unknown(1);
        for _ in 0..10 {
            deadlines.record_race(&drafts(&[(0, 20)]), 20 * MS);
        }
        deadlines.record_race(&drafts(&[(0, 2000)]), 2000 * MS);
        assert!(deadlines.limits(1).grace_period < 40 * MS);
        assert_eq!(unknown(0).limits(0).quorum, 1, "a list without drafters does not panic");
    }
}
