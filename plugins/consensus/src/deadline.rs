//! How long a race goes on, learned from the times of earlier answers.
//!
//! Invariant: a drafter that is much slower than the others, or that does not come, is waited for no longer
//! than the grace.

use tightwad_plugin_sdk::estimate::Average;
use tightwad_plugin_sdk::{DrafterFacts, RaceDraft, RaceLimits};

/// What one measurement counts at least, next to all earlier ones.
const RATE: f64 = 0.2;
/// Measurements after which an outlier is not believed at once, ...
const KNOWN: u32 = 3;
/// ... but for at most this many times, and at least one part in this many, of what was expected.
const CLIP: f64 = 4.0;
/// The others have this many typical times more when the quorum is there, ...
const GRACE: f64 = 1.0;
/// ... and at least so much: timers and threads are not more precise. In nanoseconds.
const LEAST_GRACE: f64 = 2e6;
/// A race is over after this many typical times, ...
const LONGEST: f64 = 10.0;
/// ... and at least so much, in nanoseconds: less than a pause of the machine is no sign of death.
const LEAST: f64 = 1e8;
/// The same before anything was measured in this request.
const LEAST_AT_FIRST: f64 = 2e9;
/// Who takes this many typical times is not counted on.
const STRAGGLER: f64 = 8.0;
/// Who was late this often in a row is not counted on.
const AWAY: u32 = 2;
/// Nanoseconds up to which asking takes next to nothing: no measure for those that compute.
const FREE: f64 = 1e6;

#[derive(Debug, Clone, Default)]
struct Timing {
    /// Nanoseconds until it answers; 0: unknown, or next to nothing.
    expected: Average,
    measured: u32,
    /// Still to be added to its first answer in this request: it reads the prompt.
    startup: f64,
    /// Races in a row that it did not come to.
    missed: u32,
    /// It is asked nothing.
    absent: bool,
}

impl Timing {
    fn next(&self) -> f64 {
        self.expected() + self.startup
    }

    fn expected(&self) -> f64 {
        self.expected.get().unwrap_or(0.0)
    }

    fn came(&mut self, nanoseconds: f64) {
        let startup = std::mem::take(&mut self.startup);
        let mut time = (nanoseconds - startup).max(0.0);
        if self.measured >= KNOWN && self.expected() > 0.0 {
            time = self.expected.clip(time, CLIP);
        }
        self.measured += 1;
        self.expected.observe(time, RATE.max(1.0 / f64::from(self.measured)));
        self.missed = 0;
    }

    /// It takes longer than `nanoseconds`; how much longer will never be known.
    fn was_late(&mut self, nanoseconds: f64) {
        self.expected.raise(nanoseconds - self.startup);
        self.missed = self.missed.saturating_add(1);
    }
}

/// The times of all drafters.
#[derive(Debug, Clone)]
pub struct Deadlines {
    timings: Vec<Timing>,
    at_first: bool,
}

impl Deadlines {
    /// What is known before the first race for ballots of `block` tokens.
    #[must_use]
    pub fn expecting(facts: &[DrafterFacts], block: u32) -> Self {
        let timing = |facts: &DrafterFacts| Timing {
            expected: Average::expecting(
                facts.round_trip as f64 + facts.time_per_token as f64 * f64::from(block),
            ),
            startup: facts.startup as f64,
            missed: if facts.unavailable { AWAY } else { 0 },
            absent: facts.unavailable,
            ..Timing::default()
        };
        Self { timings: facts.iter().map(timing).collect(), at_first: true }
    }

    /// How long the next race goes on, where `quorum` answers are wanted.
    #[must_use]
    pub fn end(&self, quorum: usize) -> RaceLimits {
        let here = self.here();
        let typical = typical(&here);
        let limit = (STRAGGLER * typical).max(LEAST_GRACE);
        let prompt = here.iter().filter(|time| **time <= limit).count();
        let least = if self.at_first { LEAST_AT_FIRST } else { LEAST };
        RaceLimits {
            quorum: quorum.min(prompt).max(1) as u32,
            grace_period: (GRACE * typical).max(LEAST_GRACE) as u64,
            timeout: (LONGEST * typical).max(least) as u64,
        }
    }

    /// The times of those that are counted on; of all, where nobody is.
    fn here(&self) -> Vec<f64> {
        let nobody = self.timings.iter().all(|timing| timing.missed >= AWAY);
        self.timings.iter().filter(|timing| nobody || timing.missed < AWAY).map(Timing::next).collect()
    }

    /// Notes who came to a race of so many nanoseconds.
    pub fn learn(&mut self, answers: &[RaceDraft], nanoseconds: u64) {
        for (index, timing) in self.timings.iter_mut().enumerate().filter(|(_, timing)| !timing.absent) {
            match answers.iter().find(|answer| answer.drafter as usize == index) {
                Some(answer) => timing.came(answer.draft.elapsed as f64),
                None => timing.was_late(nanoseconds as f64),
            }
        }
        self.at_first &= answers.is_empty();
    }

    /// Numbers of a note, one a drafter.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = f64> {
        self.timings.iter().map(|timing| if timing.measured > 0 { timing.expected() } else { 0.0 })
    }

    /// From a note: what an earlier request measured goes before what the host expects.
    pub(crate) fn set_number(&mut self, drafter: usize, nanoseconds: f64) {
        if let Some(timing) = self.timings.get_mut(drafter).filter(|_| nanoseconds > 0.0) {
            (timing.expected, timing.measured) = (Average::expecting(nanoseconds), 1);
        }
    }
}

/// The lower median of those that compute: with two drafters, the faster one says what is slow.
fn typical(times: &[f64]) -> f64 {
    let mut times = times.to_vec();
    times.sort_by(f64::total_cmp);
    let free = times.iter().take_while(|time| **time < FREE).count();
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

    fn answers(times: &[(u32, u64)]) -> Vec<RaceDraft> {
        let answer = |(drafter, ms): &(u32, u64)| RaceDraft {
            drafter: *drafter,
            draft: Draft { proposals: Vec::new(), elapsed: ms * MS },
        };
        times.iter().map(answer).collect()
    }

    fn unknown(drafters: usize) -> Deadlines {
        Deadlines::expecting(&vec![facts(0, 0, 0); drafters], 16)
    }

    #[test]
    fn unknown_drafters_get_time_at_first() {
        let end = unknown(3).end(2);
        assert_eq!((end.quorum, end.grace_period, end.timeout), (2, 2 * MS, 2000 * MS));
    }

    #[test]
    fn expectations_are_the_hosts_then_what_was_measured() {
        let mut deadlines =
            Deadlines::expecting(&[facts(500 * MS, MS, 4 * MS), facts(500 * MS, MS, 4 * MS)], 16);
        assert_eq!(deadlines.end(2).grace_period, 520 * MS, "it reads the prompt first");
        deadlines.learn(&answers(&[(0, 510), (1, 510)]), 510 * MS);
        assert_eq!(deadlines.end(2).grace_period, 10 * MS);
        for _ in 0..20 {
            deadlines.learn(&answers(&[(0, 30), (1, 30)]), 30 * MS);
        }
        let end = deadlines.end(2);
        assert!((29 * MS..=30 * MS).contains(&end.grace_period), "{}", end.grace_period);
        assert!((290 * MS..=300 * MS).contains(&end.timeout), "{}", end.timeout);
    }

    #[test]
    fn one_of_two_that_is_twenty_times_slower_is_not_waited_for() {
        let mut deadlines = unknown(2);
        deadlines.learn(&answers(&[(0, 20), (1, 400)]), 400 * MS);
        let end = deadlines.end(2);
        assert_eq!((end.quorum, end.grace_period), (1, 20 * MS));
        // As soon as it keeps up, it is counted on.
        deadlines.learn(&answers(&[(0, 20), (1, 25)]), 25 * MS);
        assert_eq!(deadlines.end(2).quorum, 1, "not at once");
        for _ in 0..10 {
            deadlines.learn(&answers(&[(0, 20), (1, 25)]), 25 * MS);
        }
        assert_eq!(deadlines.end(2).quorum, 2);
    }

    #[test]
    fn a_drafter_that_does_not_come_is_not_counted_on() {
        let mut deadlines = unknown(3);
        deadlines.learn(&answers(&[(0, 20), (1, 20), (2, 20)]), 20 * MS);
        assert_eq!(deadlines.end(3).quorum, 3);
        deadlines.learn(&answers(&[(0, 20), (1, 20)]), 200 * MS);
        deadlines.learn(&answers(&[(0, 20), (1, 20)]), 20 * MS);
        assert_eq!(deadlines.end(3).quorum, 2);
        // When nobody comes, they get no less time than before: else they would never come again.
        deadlines.learn(&[], 200 * MS);
        deadlines.learn(&[], 0);
        assert!(deadlines.end(2).timeout >= 2000 * MS);
        deadlines.learn(&answers(&[(0, 20), (1, 20), (2, 20)]), 20 * MS);
        assert_eq!(deadlines.end(3).quorum, 3, "they are back");
    }

    #[test]
    fn drafters_that_cost_nothing_are_no_measure() {
        let all = [facts(0, 0, 0), facts(0, 2 * MS, 8 * MS), facts(0, 3 * MS, 2 * MS)];
        let end = Deadlines::expecting(&all, 16).end(3);
        assert_eq!((end.quorum, end.grace_period), (3, 40 * MS));
        assert_eq!(Deadlines::expecting(&all[..1], 16).end(1).quorum, 1);
    }

    #[test]
    fn one_pause_does_not_move_a_known_time_far() {
        let mut deadlines = unknown(1);
        for _ in 0..10 {
            deadlines.learn(&answers(&[(0, 20)]), 20 * MS);
        }
        deadlines.learn(&answers(&[(0, 2000)]), 2000 * MS);
        assert!(deadlines.end(1).grace_period < 40 * MS);
        assert_eq!(unknown(0).end(0).quorum, 1, "no drafter is no reason to panic");
    }
}
