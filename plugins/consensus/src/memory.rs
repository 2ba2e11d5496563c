//! What was learned, handed on from request to request as a line of numbers: times, weights, accuracies
//! and the level.

use tightwad_plugin_sdk::DrafterFacts;

use crate::accuracy::Accuracy;
use crate::deadline::Deadlines;
use crate::hedge::Weights;
use crate::level::Level;

/// The first word of a note of this form.
const FORM: &str = "v1";
/// Numbers of the level, and of each drafter.
const OF_LEVEL: usize = 3;
const OF_DRAFTER: usize = 4;
/// Nanoseconds in the unit of notes.
const UNIT: f64 = 1e6;

/// All that outlives a request.
#[derive(Debug, Clone)]
pub struct Known {
    /// When drafters answer.
    pub deadlines: Deadlines,
    /// What their word is worth.
    pub weights: Weights,
    /// How often they are right.
    pub accuracies: Vec<Accuracy>,
    /// How tight the rule was made.
    pub level: Level,
}

impl Known {
    /// What is known before the first request.
    #[must_use]
    pub fn new(facts: &[DrafterFacts], block: u32) -> Self {
        Self {
            deadlines: Deadlines::expecting(facts, block),
            weights: Weights::new(facts.len()),
            accuracies: vec![Accuracy::default(); facts.len()],
            level: Level::default(),
        }
    }

    /// Writes a note.
    #[must_use]
    pub fn write(&self) -> String {
        let mut words = vec![FORM.to_owned(), self.accuracies.len().to_string()];
        words.extend(self.level.numbers().map(|number| format!("{number}")));
        let each = self.deadlines.numbers().zip(self.weights.numbers()).zip(&self.accuracies);
        for ((time, weight), accuracy) in each {
            let [right, all] = accuracy.numbers();
            words.extend([time / UNIT, *weight, right, all].map(|number| format!("{number:.4}")));
        }
        words.join(" ")
    }

    /// Reads a note; one that does not fit changes nothing.
    pub fn read(&mut self, note: &str) {
        if let Some(read) = self.with(note) {
            *self = read;
        }
    }

    fn with(&self, note: &str) -> Option<Self> {
        let mut words = note.split(' ');
        let drafters = self.accuracies.len();
        let fits =
            words.next() == Some(FORM) && words.next().and_then(|count| count.parse().ok()) == Some(drafters);
        let numbers: Vec<f64> = words.map_while(|word| word.parse().ok()).collect();
        let sane = numbers.iter().all(|number| number.is_finite() && *number >= 0.0);
        if !fits || !sane || numbers.len() != OF_LEVEL + OF_DRAFTER * drafters {
            return None;
        }
        let (level, each) = numbers.split_at(OF_LEVEL);
        let mut read = self.clone();
        read.level = Level::from_numbers(level.try_into().ok()?)?;
        let mut weights = Vec::new();
        for (drafter, own) in each.chunks_exact(OF_DRAFTER).enumerate() {
            read.deadlines.set_number(drafter, own[0] * UNIT);
            weights.push(own[1]);
            read.accuracies[drafter] = Accuracy::from_numbers([own[2], own[3]])?;
        }
        read.weights = Weights::from_numbers(&weights)?;
        Some(read)
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

    fn learned() -> Known {
        let mut known = Known::new(&facts(3), 16);
        known.weights.learn(&[Some(0.0), Some(0.0), Some(1.0)]);
        known.accuracies[0].learn(Score { right: 12, wrong: 1 });
        let answers: Vec<RaceDraft> = [7, 7, 9]
            .iter()
            .zip(0..)
            .map(|(ms, drafter)| RaceDraft {
                drafter,
                draft: Draft { proposals: Vec::new(), elapsed: ms * 1_000_000 },
            })
            .collect();
        known.deadlines.learn(&answers, 9_000_000);
        assert!(known.level.check(Rule::Hedge, AuditStats { audited: 50, agreed: 10 }, 0.9).is_some());
        known
    }

    #[test]
    fn a_note_carries_everything_over() {
        let first = learned();
        let note = first.write();
        assert!(note.len() < 200, "{note}");
        let mut second = Known::new(&facts(3), 16);
        second.read(&note);
        assert_eq!(second.level.rule(Rule::Hedge), Rule::Strict);
        assert!((second.weights.of(2) - first.weights.of(2)).abs() < 1e-3);
        assert!((second.accuracies[0].share() - first.accuracies[0].share()).abs() < 1e-3);
        assert_eq!(second.deadlines.end(3).grace_period, 7_000_000);
        assert_eq!(second.write(), note);
    }

    #[test]
    fn nonsense_changes_nothing() {
        let fresh = Known::new(&facts(3), 16);
        let note = learned().write();
        let notes = [
            String::new(),
            "v1 3 nonsense".to_owned(),
            note.replace("v1", "v0"),
            note.replace("v1 3", "v1 2"),
            format!("{note} 1"),
            note[..note.len() - 8].to_owned(),
            note.replacen("v1 3 1", "v1 3 7", 1),
            note.replacen("v1 3 1", "v1 3 -1", 1),
            note.replacen("v1 3 1", "v1 3 NaN", 1),
            note.replacen("50 10", "10 50", 1),
        ];
        for nonsense in notes {
            let mut known = fresh.clone();
            known.read(&nonsense);
            assert_eq!(known.write(), fresh.write(), "{nonsense}");
        }
        let mut others = Known::new(&facts(2), 16);
        others.read(&note);
        assert_eq!(others.write(), Known::new(&facts(2), 16).write());
    }

    #[test]
    fn many_drafters_fit_into_a_note() {
        assert!(Known::new(&facts(32), 16).write().len() <= 16_384);
    }
}
