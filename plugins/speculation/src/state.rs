//! The state that one request saves for the next, as a line of numbers: costs, acceptance and a part of the gains.
//! Costs of an earlier request weigh less than new ones.

use crate::controller::Controller;

/// The first word of a saved state of this format.
const FORMAT_VERSION: &str = "v1";

/// Returns the saved state of `controller`.
#[must_use]
pub fn save(controller: &Controller) -> String {
    let mut numbers = vec![controller.carried_budget()];
    numbers.extend(controller.pass_cost.saved_numbers());
    for drafter in &controller.drafters {
        numbers.extend(drafter.draft_cost.saved_numbers());
        numbers.extend(drafter.acceptance.saved_numbers());
    }
    // Measurements have fewer than five digits, and the host limits the size of a state.
    let words: Vec<String> = numbers.iter().map(|number| format!("{number:.4e}")).collect();
    format!("{FORMAT_VERSION} {} {}", controller.drafters.len(), words.join(" "))
}

/// Restores a saved state into a new `controller`. A state that does not fit changes nothing.
pub fn restore(saved: &str, controller: &mut Controller) {
    let mut words = saved.split(' ');
    let fits = words.next() == Some(FORMAT_VERSION)
        && words.next().and_then(|count| count.parse().ok()) == Some(controller.drafters.len());
    let numbers: Vec<f64> = words.map_while(|word| word.parse().ok()).collect();
    let mut restored = controller.clone();
    let mut rest = numbers.as_slice();
    let mut take = |count: usize| {
        let (own, after) = rest.split_at_checked(count)?;
        rest = after;
        Some(own)
    };
    let mut restore_all = || {
        restored.budget.lost = take(1)?[0];
        restored.pass_cost.restore(take(crate::cost::PassCost::NUMBER_COUNT)?);
        for drafter in &mut restored.drafters {
            drafter.draft_cost.restore(take(crate::cost::DraftCost::NUMBER_COUNT)?);
            drafter.acceptance.restore(take(crate::acceptance::Acceptance::NUMBER_COUNT)?);
        }
        Some(())
    };
    if fits && restore_all().is_some() {
        *controller = restored;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::{Facts, Plan};
    use crate::cost::PassCost;

    #[test]
    fn saved_state_is_restored_and_nonsense_changes_nothing() {
        let facts = [Facts::default()];
        let mut first = Controller::new(PassCost::default(), &facts, 32);
        first.record_decode(4, 40_000_000);
        for _ in 0..30 {
            first.record_verification(0, &[0.95; 8], 8, 40_000_000);
        }
        let saved = save(&first);
        assert!(saved.len() < 2048, "{}", saved.len());
        let mut second = Controller::new(PassCost::default(), &facts, 32);
        restore("v1 1 nonsense", &mut second);
        restore("", &mut second);
        assert_eq!(second.plan(&[false], 100), Plan::Decode(4));
        restore(&saved, &mut second);
        let free = Plan::Draft { drafter: 0, max_tokens: 32, min_probability: 0.0 };
        assert_eq!(second.plan(&[false], 100), free);
        assert!(second.draft_length(0, &[0.95; 32], 100) >= 8);
        let many =
            Controller::new(PassCost::default(), &[Facts { time_per_token: 1, ..Facts::default() }; 16], 32);
        let long = save(&many.with_ensemble(&[false; 16]));
        assert!(long.len() <= 16_384, "{}", long.len());
        let mut other = Controller::new(PassCost::default(), &[Facts::default(); 2], 32);
        restore(&saved, &mut other);
        assert_eq!(other.plan(&[false; 2], 100), Plan::Decode(4));
    }
}
