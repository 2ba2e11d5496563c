use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// What happens to the slots.
#[derive(Debug, Clone)]
enum Event {
    Take(Vec<TokenId>),
    Borrow,
    /// The n-th slot that is taken is given back; its cache holds these tokens.
    Free(usize, Vec<TokenId>),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let tokens = || vec(0..3_u32, 1..8);
    let event = prop_oneof![
        tokens().prop_map(Event::Take),
        Just(Event::Borrow),
        (any::<usize>(), vec(0..3_u32, 0..8)).prop_map(|(which, cached)| Event::Free(which, cached)),
    ];
    vec(event, 0..40)
}

proptest! {
    /// No slot has two owners, and no prompt is given tokens that a cache does not hold.
    #[test]
    fn slots_have_one_owner_and_caches_what_they_promise(
        count in 1..5_u32,
        whole in any::<bool>(),
        events in events(),
    ) {
        let mut slots = Slots::new(count, whole);
        let mut caches: Vec<Option<Vec<TokenId>>> = vec![Some(Vec::new()); count as usize];
        for event in events {
            match event {
                Event::Take(prompt) => match slots.take(&prompt) {
                    None => prop_assert!(caches.iter().all(Option::is_none), "a slot was free"),
                    Some(place) => {
                        let source = caches[place.copied.unwrap_or(place.slot)].clone();
                        let source = source.expect("its source is free");
                        prop_assert!(place.kept < prompt.len(), "the last token is evaluated");
                        prop_assert_eq!(&source[..place.kept], &prompt[..place.kept]);
                        prop_assert!(!whole || place.kept == 0 || place.kept == source.len());
                        prop_assert!(caches[place.slot].take().is_some(), "it was taken");
                    }
                },
                Event::Borrow => match slots.borrow() {
                    None => prop_assert!(caches.iter().all(Option::is_none), "a slot was free"),
                    Some(slot) => prop_assert!(caches[slot].take().is_some(), "it was taken"),
                },
                Event::Free(which, cached) => {
                    let taken: Vec<usize> = (0..caches.len()).filter(|slot| caches[*slot].is_none()).collect();
                    if !taken.is_empty() {
                        let slot = taken[which % taken.len()];
                        slots.free(slot, cached.clone());
                        caches[slot] = Some(cached);
                    }
                }
            }
        }
    }
}
