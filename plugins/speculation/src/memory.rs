//! What was measured, handed on from request to request as a line of numbers: costs, acceptance and
//! part of the gains. Costs of an earlier request weigh less than new ones.

use crate::controller::Controller;

/// The first word of a note of this form.
const FORM: &str = "v1";

/// Writes what `controller` knows.
#[must_use]
pub fn write(controller: &Controller) -> String {
    let mut numbers = vec![controller.inheritance()];
    numbers.extend(controller.verification.numbers());
    for drafter in &controller.drafters {
        numbers.extend(drafter.drafting.numbers());
        numbers.extend(drafter.acceptance.numbers());
    }
    // Five digits are more than was measured, and notes have a limit.
    let words: Vec<String> = numbers.iter().map(|number| format!("{number:.4e}")).collect();
    format!("{FORM} {} {}", controller.drafters.len(), words.join(" "))
}

/// Reads a note into a new `controller`; one that does not fit changes nothing.
pub fn read(note: &str, controller: &mut Controller) {
    let mut words = note.split(' ');
    let fits = words.next() == Some(FORM)
        && words.next().and_then(|count| count.parse().ok()) == Some(controller.drafters.len());
    let numbers: Vec<f64> = words.map_while(|word| word.parse().ok()).collect();
    let mut read = controller.clone();
    let mut rest = numbers.as_slice();
    let mut take = |count: usize| {
        let (own, after) = rest.split_at_checked(count)?;
        rest = after;
        Some(own)
    };
    let mut all = || {
        read.budget.lost = take(1)?[0];
        read.verification.set_numbers(take(crate::cost::Verification::NUMBERS)?);
        for drafter in &mut read.drafters {
            drafter.drafting.set_numbers(take(crate::cost::Drafting::NUMBERS)?);
            drafter.acceptance.set_numbers(take(crate::acceptance::Acceptance::NUMBERS)?);
        }
        Some(())
    };
    if fits && all().is_some() {
        *controller = read;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::{Facts, Plan};
    use crate::cost::Verification;

    #[test]
    fn a_note_carries_over_and_nonsense_changes_nothing() {
        let facts = [Facts::default()];
        let mut first = Controller::new(Verification::default(), &facts, 32);
        first.decoded(4, 40_000_000);
        for _ in 0..30 {
            first.verified(0, &[0.95; 8], 8, 40_000_000);
        }
        let note = write(&first);
        assert!(note.len() < 2048, "{}", note.len());
        let mut second = Controller::new(Verification::default(), &facts, 32);
        read("v1 1 nonsense", &mut second);
        read("", &mut second);
        assert_eq!(second.plan(&[false], 100), Plan::Decode(4));
        read(&note, &mut second);
        assert_eq!(second.plan(&[false], 100), Plan::Draft { drafter: 0, max: 32, min_probability: 0.0 });
        assert!(second.cut(0, &[0.95; 32], 100) >= 8);
        let many =
            Controller::new(Verification::default(), &[Facts { token: 1, ..Facts::default() }; 16], 32);
        let note = write(&many.with_team(&[false; 16]));
        assert!(note.len() <= 16_384, "{}", note.len());
        let note = write(&first);
        let mut other = Controller::new(Verification::default(), &[Facts::default(); 2], 32);
        read(&note, &mut other);
        assert_eq!(other.plan(&[false; 2], 100), Plan::Decode(4));
    }
}
