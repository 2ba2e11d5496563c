//! The state that one request saves for the next, as a line of numbers: times, weights, accuracies and the
//! strictness.

use tightwad_plugin_sdk::DrafterFacts;

use crate::accuracy::Accuracy;
use crate::deadline::Deadlines;
use crate::hedge::Weights;
use crate::strictness::Strictness;

/// The first word of a saved state of this format.
const FORMAT_VERSION: &str = "v1";
/// Numbers of the strictness.
const STRICTNESS_NUMBERS: usize = 3;
/// Numbers of each drafter.
const NUMBERS_PER_DRAFTER: usize = 4;
/// Nanoseconds per unit of the saved state.
const NANOSECONDS_PER_UNIT: f64 = 1e6;

/// The values that outlive a request.
#[derive(Debug, Clone)]
pub struct LearnedState {
    /// The reply times of the drafters.
    pub deadlines: Deadlines,
    /// The weights of the drafters.
    pub weights: Weights,
    /// The accuracies of the drafters.
    pub accuracies: Vec<Accuracy>,
    /// How strict audits made the rule.
    pub strictness: Strictness,
}

impl LearnedState {
    /// Creates the state of the first request.
    #[must_use]
    pub fn new(facts: &[DrafterFacts], max_draft_tokens: u32) -> Self {
        Self {
            deadlines: Deadlines::expecting(facts, max_draft_tokens),
            weights: Weights::new(facts.len()),
            accuracies: vec![Accuracy::default(); facts.len()],
            strictness: Strictness::default(),
        }
    }

    /// Returns the state to save.
    #[must_use]
    pub fn save(&self) -> String {
        let mut words = vec![FORMAT_VERSION.to_owned(), self.accuracies.len().to_string()];
        words.extend(self.strictness.saved_numbers().map(|number| format!("{number}")));
        let each = self.deadlines.saved_numbers().zip(self.weights.saved_numbers()).zip(&self.accuracies);
        for ((time, weight), accuracy) in each {
            let [right, total] = accuracy.saved_numbers();
            let numbers = [time / NANOSECONDS_PER_UNIT, *weight, right, total];
            words.extend(numbers.map(|number| format!("{number:.4}")));
        }
        words.join(" ")
    }

    /// Restores a saved state. A state that does not fit changes nothing.
    pub fn restore(&mut self, saved: &str) {
        if let Some(restored) = self.parse(saved) {
            *self = restored;
        }
    }

    fn parse(&self, saved: &str) -> Option<Self> {
        let mut words = saved.split(' ');
        let drafters = self.accuracies.len();
        let fits = words.next() == Some(FORMAT_VERSION)
            && words.next().and_then(|count| count.parse().ok()) == Some(drafters);
        let numbers: Vec<f64> = words.map_while(|word| word.parse().ok()).collect();
        let sane = numbers.iter().all(|number| number.is_finite() && *number >= 0.0);
        if !fits || !sane || numbers.len() != STRICTNESS_NUMBERS + NUMBERS_PER_DRAFTER * drafters {
            return None;
        }
        let (strictness, each) = numbers.split_at(STRICTNESS_NUMBERS);
        let mut restored = self.clone();
        restored.strictness = Strictness::from_numbers(strictness.try_into().ok()?)?;
        let mut weights = Vec::new();
        for (drafter, own) in each.chunks_exact(NUMBERS_PER_DRAFTER).enumerate() {
            restored.deadlines.restore_time(drafter, own[0] * NANOSECONDS_PER_UNIT);
            weights.push(own[1]);
            restored.accuracies[drafter] = Accuracy::from_numbers([own[2], own[3]])?;
        }
        restored.weights = Weights::from_numbers(&weights)?;
        Some(restored)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ballots::Score;
    use crate::rules::Rule;
    use tightwad_plugin_sdk::{AuditStats, Draft, RaceDraft};

    fn facts(drafters: usize) -> Vec<DrafterFacts> {
        let one = |index| DrafterFacts {
            name: format!("drafter {index}"),
            unavailable: false,
            shares_processor: false,
            startup: 0,
            time_per_token: 1_000_000,
            round_trip: 0,
        };
        (0..drafters).map(one).collect()
    }

    fn learned_state() -> LearnedState {
        let mut learned = LearnedState::new(&facts(3), 16);
        learned.weights.learn(&[Some(0.0), Some(0.0), Some(1.0)]);
        learned.accuracies[0].learn(Score { right: 12, wrong: 1 });
        let drafts: Vec<RaceDraft> = [7, 7, 9]
            .iter()
            .zip(0..)
            .map(|(ms, drafter)| RaceDraft {
                drafter,
                draft: Draft { proposals: Vec::new(), elapsed: ms * 1_000_000 },
            })
            .collect();
        learned.deadlines.record_race(&drafts, 9_000_000);
        assert!(learned.strictness.check(Rule::Hedge, AuditStats { audited: 50, agreed: 10 }, 0.9).is_some());
        learned
    }

    #[test]
    fn saved_state_is_restored_completely() {
        let first = learned_state();
        let saved = first.save();
        assert!(saved.len() < 200, "{saved}");
        let mut second = LearnedState::new(&facts(3), 16);
        second.restore(&saved);
        assert_eq!(second.strictness.apply(Rule::Hedge), Rule::Strict);
        assert!((second.weights.get(2) - first.weights.get(2)).abs() < 1e-3);
        assert!((second.accuracies[0].estimate() - first.accuracies[0].estimate()).abs() < 1e-3);
        assert_eq!(second.deadlines.limits(3).grace_period, 7_000_000);
        assert_eq!(second.save(), saved);
    }

    #[test]
    fn nonsense_changes_nothing() {
        let fresh = LearnedState::new(&facts(3), 16);
        let saved = learned_state().save();
        let texts = [
            String::new(),
            "v1 3 nonsense".to_owned(),
            saved.replace("v1", "v0"),
            saved.replace("v1 3", "v1 2"),
            format!("{saved} 1"),
            saved[..saved.len() - 8].to_owned(),
            saved.replacen("v1 3 1", "v1 3 7", 1),
            saved.replacen("v1 3 1", "v1 3 -1", 1),
            saved.replacen("v1 3 1", "v1 3 NaN", 1),
            saved.replacen("50 10", "10 50", 1),
        ];
        for nonsense in texts {
            let mut learned = fresh.clone();
            learned.restore(&nonsense);
            assert_eq!(learned.save(), fresh.save(), "{nonsense}");
        }
        let mut others = LearnedState::new(&facts(2), 16);
        others.restore(&saved);
        assert_eq!(others.save(), LearnedState::new(&facts(2), 16).save());
    }

    #[test]
    fn state_of_many_drafters_fits_the_host_limit() {
        assert!(LearnedState::new(&facts(32), 16).save().len() <= 16_384);
    }
}
