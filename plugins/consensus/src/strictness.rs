//! How strict audits make the rule.
//!
//! Invariant: the rule only becomes stricter. Without acceptances there are no audits that could allow a relaxation:
//! the user decides by reloading the script.

use tightwad_plugin_sdk::AuditStats;

use crate::rules::Rule;

/// Audited tokens below which their agreement is not evidence.
const MIN_AUDITED_TOKENS: u64 = 40;
/// Audited tokens after which half of them are forgotten: drafters change.
const AUDIT_WINDOW_TOKENS: u64 = 400;
/// Steps to a stricter rule, at most.
const MAX_STEPS: u8 = 2;

/// The number of steps to a stricter rule, and the audits before the last one.
#[derive(Debug, Clone, Copy, Default)]
pub struct Strictness {
    steps: u8,
    audited: u64,
    agreed: u64,
}

impl Strictness {
    /// The rule that applies in place of `base`.
    #[must_use]
    pub fn apply(&self, base: Rule) -> Rule {
        (0..self.steps).fold(base, |rule, _| stricter(rule))
    }

    /// Makes `base` stricter by one step if the audits since the last step agree less than `min_agreement`. Returns
    /// the reason.
    pub fn check(&mut self, base: Rule, now: AuditStats, min_agreement: f64) -> Option<String> {
        if self.apply(base) == Rule::Verify {
            return None;
        }
        let since = now.audited.checked_sub(self.audited).zip(now.agreed.checked_sub(self.agreed));
        let Some((audited, agreed)) = since else {
            // The host's counters started anew.
            (self.audited, self.agreed) = (0, 0);
            return None;
        };
        if audited < MIN_AUDITED_TOKENS {
            return None;
        }
        if agreed as f64 >= min_agreement * audited as f64 {
            if audited > AUDIT_WINDOW_TOKENS {
                self.audited += audited / 2;
                self.agreed += agreed / 2;
            }
            return None;
        }
        *self = Self { steps: self.steps + 1, audited: now.audited, agreed: now.agreed };
        // Rounded down: a share below the minimum must not read as the minimum.
        let share = (100.0 * agreed as f64 / audited as f64).floor();
        let minimum = 100.0 * min_agreement;
        Some(format!(
            "audits: the target agrees with {share:.0} % of {audited} tokens, less than {minimum:.0} %"
        ))
    }

    /// Takes the stricter one of both: another request may have made the rule stricter.
    pub fn merge(&mut self, other: Self) {
        if other.steps > self.steps {
            *self = other;
        }
    }

    /// Numbers of the saved state.
    pub(crate) fn saved_numbers(&self) -> [f64; 3] {
        [f64::from(self.steps), self.audited as f64, self.agreed as f64]
    }

    /// Restores the saved state. `None`: the numbers are out of range.
    pub(crate) fn from_numbers([steps, audited, agreed]: [f64; 3]) -> Option<Self> {
        let fits = (0.0..=f64::from(MAX_STEPS)).contains(&steps) && agreed >= 0.0 && agreed <= audited;
        fits.then_some(Self { steps: steps as u8, audited: audited as u64, agreed: agreed as u64 })
    }
}

/// Strict is the strictest rule that accepts tokens. Strict itself, rules as strict as it, and policies end at
/// verification.
fn stricter(rule: Rule) -> Rule {
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
    fn hedge_becomes_strict_and_strict_becomes_verify() {
        let mut strictness = Strictness::default();
        assert_eq!(strictness.check(Rule::Hedge, audits(39, 0), 0.9), None, "too few audits");
        let reason = strictness.check(Rule::Hedge, audits(57, 46), 0.9).expect("80.7 % is less than 90 %");
        assert_eq!(reason, "audits: the target agrees with 80 % of 57 tokens, less than 90 %");
        assert_eq!(strictness.apply(Rule::Hedge), Rule::Strict);
        assert_eq!(strictness.check(Rule::Hedge, audits(57, 46), 0.9), None, "no audits of the new rule");
        assert_eq!(strictness.check(Rule::Hedge, audits(157, 146), 0.9), None, "the new rule is good enough");
        assert!(strictness.check(Rule::Hedge, audits(257, 200), 0.9).is_some());
        assert_eq!(strictness.apply(Rule::Hedge), Rule::Verify);
        assert_eq!(strictness.check(Rule::Hedge, audits(1000, 200), 0.9), None, "no rule is stricter");
    }

    #[test]
    fn every_rule_ends_at_verify() {
        let mut strictness = Strictness::default();
        assert_eq!(strictness.apply(Rule::Majority), Rule::Majority);
        assert!(strictness.check(Rule::Strict, audits(40, 35), 0.9).is_some());
        assert_eq!(strictness.apply(Rule::Majority), Rule::Strict);
        for base in [Rule::Strict, Rule::AnyDisagree, Rule::Plugin] {
            assert_eq!(strictness.apply(base), Rule::Verify);
        }
    }

    #[test]
    fn agreement_at_the_minimum_is_enough() {
        assert_eq!(Strictness::default().check(Rule::Strict, audits(40, 36), 0.9), None);
        assert_eq!(Strictness::default().check(Rule::Strict, audits(40, 0), 0.0), None);
        assert!(Strictness::default().check(Rule::Strict, audits(40, 39), 1.0).is_some());
    }

    #[test]
    fn long_agreement_does_not_hide_a_recent_drop() {
        let mut strictness = Strictness::default();
        let mut now = audits(0, 0);
        for _ in 0..1000 {
            now = audits(now.audited + 100, now.agreed + 98);
            assert_eq!(strictness.check(Rule::Strict, now, 0.9), None);
        }
        let bad = (0..8).find(|_| {
            now = audits(now.audited + 100, now.agreed + 50);
            strictness.check(Rule::Strict, now, 0.9).is_some()
        });
        assert!(bad.is_some());
    }

    #[test]
    fn counters_that_start_anew_are_no_evidence() {
        let mut strictness = Strictness::default();
        assert!(strictness.check(Rule::Hedge, audits(1000, 100), 0.9).is_some());
        assert_eq!(strictness.check(Rule::Hedge, audits(50, 50), 0.9), None);
        assert_eq!(strictness.check(Rule::Hedge, audits(50, 50), 0.9), None);
        assert!(strictness.check(Rule::Hedge, audits(100, 60), 0.9).is_some());
    }

    #[test]
    fn stricter_one_of_two_requests_wins() {
        let stricter = Strictness { steps: 1, audited: 50, agreed: 10 };
        let mut strictness = Strictness::default();
        strictness.merge(stricter);
        assert_eq!(strictness.apply(Rule::Strict), Rule::Verify);
        strictness.merge(Strictness::default());
        assert_eq!(strictness.apply(Rule::Strict), Rule::Verify);
    }
}
