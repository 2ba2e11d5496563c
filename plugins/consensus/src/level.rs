//! When audits make the rule a tighter one.
//!
//! Invariant: a level only goes up. Once nothing is accepted there are no audits that could show that it may
//! go down; a person who reloads the script decides that.

use tightwad_plugin_sdk::AuditStats;

use crate::rules::Rule;

/// Audited tokens before which their share says little.
const ENOUGH: u64 = 40;
/// Audited tokens after which half of them are forgotten: drafters change.
const MANY: u64 = 400;
/// Most times that a rule gets tighter.
const STEPS: u8 = 2;

/// How often the rule was made tighter, and the audits of before that.
#[derive(Debug, Clone, Copy, Default)]
pub struct Level {
    steps: u8,
    audited: u64,
    agreed: u64,
}

impl Level {
    /// The rule at work in place of `base`.
    #[must_use]
    pub fn rule(&self, base: Rule) -> Rule {
        (0..self.steps).fold(base, |rule, _| tighter(rule))
    }

    /// Tightens `base` by one step when audits since the last step agreed less than `floor`; says why.
    pub fn check(&mut self, base: Rule, now: AuditStats, floor: f64) -> Option<String> {
        if self.rule(base) == Rule::Verify {
            return None;
        }
        let since = now.audited.checked_sub(self.audited).zip(now.agreed.checked_sub(self.agreed));
        let Some((audited, agreed)) = since else {
            // The host counts anew.
            (self.audited, self.agreed) = (0, 0);
            return None;
        };
        if audited < ENOUGH {
            return None;
        }
        if agreed as f64 >= floor * audited as f64 {
            if audited > MANY {
                self.audited += audited / 2;
                self.agreed += agreed / 2;
            }
            return None;
        }
        *self = Self { steps: self.steps + 1, audited: now.audited, agreed: now.agreed };
        // Rounded down: what is less than the floor must not read as if it were not.
        let share = (100.0 * agreed as f64 / audited as f64).floor();
        let floor = 100.0 * floor;
        Some(format!(
            "audits: the target agrees with {share:.0} % of {audited} tokens, less than {floor:.0} %"
        ))
    }

    /// Takes over what another request has found out meanwhile.
    pub fn join(&mut self, other: Self) {
        if other.steps > self.steps {
            *self = other;
        }
    }

    /// Numbers of a note.
    pub(crate) fn numbers(&self) -> [f64; 3] {
        [f64::from(self.steps), self.audited as f64, self.agreed as f64]
    }

    /// From a note; `None` where that is no level.
    pub(crate) fn from_numbers([steps, audited, agreed]: [f64; 3]) -> Option<Self> {
        let fits = (0.0..=f64::from(STEPS)).contains(&steps) && agreed >= 0.0 && agreed <= audited;
        fits.then_some(Self { steps: steps as u8, audited: audited as u64, agreed: agreed as u64 })
    }
}

/// Strict is the tightest rule that accepts; a plugin's rulings, and those of a rule as tight as strict, are
/// followed by none.
fn tighter(rule: Rule) -> Rule {
    match rule {
        Rule::Hedge | Rule::Majority => Rule::Strict,
        Rule::Strict | Rule::AnyDisagree | Rule::Plugin | Rule::Verify => Rule::Verify,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn audits(audited: u64, agreed: u64) -> AuditStats {
        AuditStats { audited, agreed }
    }

    #[test]
    fn hedge_becomes_strict_and_strict_accepts_nothing() {
        let mut level = Level::default();
        assert_eq!(level.check(Rule::Hedge, audits(39, 0), 0.9), None, "too few to say");
        let why = level.check(Rule::Hedge, audits(57, 46), 0.9).expect("80.7 % is less than 90 %");
        assert_eq!(why, "audits: the target agrees with 80 % of 57 tokens, less than 90 %");
        assert_eq!(level.rule(Rule::Hedge), Rule::Strict);
        assert_eq!(level.check(Rule::Hedge, audits(57, 46), 0.9), None, "the new rule has its own chance");
        assert_eq!(level.check(Rule::Hedge, audits(157, 146), 0.9), None, "and is good enough");
        assert!(level.check(Rule::Hedge, audits(257, 200), 0.9).is_some());
        assert_eq!(level.rule(Rule::Hedge), Rule::Verify);
        assert_eq!(level.check(Rule::Hedge, audits(1000, 200), 0.9), None, "there is nothing tighter");
    }

    #[test]
    fn every_rule_ends_at_none() {
        let mut level = Level::default();
        assert_eq!(level.rule(Rule::Majority), Rule::Majority);
        assert!(level.check(Rule::Strict, audits(40, 35), 0.9).is_some());
        assert_eq!(level.rule(Rule::Majority), Rule::Strict);
        for base in [Rule::Strict, Rule::AnyDisagree, Rule::Plugin] {
            assert_eq!(level.rule(base), Rule::Verify);
        }
    }

    #[test]
    fn the_floor_itself_is_good_enough() {
        assert_eq!(Level::default().check(Rule::Strict, audits(40, 36), 0.9), None);
        assert_eq!(Level::default().check(Rule::Strict, audits(40, 0), 0.0), None);
        assert!(Level::default().check(Rule::Strict, audits(40, 39), 1.0).is_some());
    }

    #[test]
    fn a_long_good_past_does_not_hide_a_bad_present() {
        let mut level = Level::default();
        let mut now = audits(0, 0);
        for _ in 0..1000 {
            now = audits(now.audited + 100, now.agreed + 98);
            assert_eq!(level.check(Rule::Strict, now, 0.9), None);
        }
        let bad = (0..8).find(|_| {
            now = audits(now.audited + 100, now.agreed + 50);
            level.check(Rule::Strict, now, 0.9).is_some()
        });
        assert!(bad.is_some());
    }

    #[test]
    fn counters_that_begin_anew_are_no_evidence() {
        let mut level = Level::default();
        assert!(level.check(Rule::Hedge, audits(1000, 100), 0.9).is_some());
        assert_eq!(level.check(Rule::Hedge, audits(50, 50), 0.9), None);
        assert_eq!(level.check(Rule::Hedge, audits(50, 50), 0.9), None);
        assert!(level.check(Rule::Hedge, audits(100, 60), 0.9).is_some());
    }

    #[test]
    fn the_tighter_of_two_requests_counts() {
        let tight = Level { steps: 1, audited: 50, agreed: 10 };
        let mut level = Level::default();
        level.join(tight);
        assert_eq!(level.rule(Rule::Strict), Rule::Verify);
        level.join(Level::default());
        assert_eq!(level.rule(Rule::Strict), Rule::Verify);
    }
}
