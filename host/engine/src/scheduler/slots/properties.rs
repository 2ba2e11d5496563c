use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// An operation on the slots.
#[derive(Debug, Clone)]
enum Event {
    Lease(Vec<TokenId>),
    LeaseBranch,
    /// Releases the n-th leased slot; its cache holds these tokens.
    Release(usize, Vec<TokenId>),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let tokens = || vec(0..3_u32, 1..8);
    let event = prop_oneof![
        tokens().prop_map(Event::Lease),
        Just(Event::LeaseBranch),
        (any::<usize>(), vec(0..3_u32, 0..8)).prop_map(|(which, cached)| Event::Release(which, cached)),
    ];
    vec(event, 0..40)
}

proptest! {
    /// No slot has two owners, and each cache holds the tokens that its lease promises.
    #[test]
    fn slots_have_one_owner_and_caches_hold_leased_tokens(
        count in 1..5_u32,
        spacing in 1..4_usize,
        events in events(),
    ) {
        let mut slots = Slots::new(count);
        let reusable = |_: usize, common: usize| common - common % spacing;
        let mut caches: Vec<Option<Vec<TokenId>>> = vec![Some(Vec::new()); count as usize];
        for event in events {
            match event {
                Event::Lease(prompt) => match slots.lease(&prompt, reusable) {
                    None => prop_assert!(caches.iter().all(Option::is_none), "a slot was free"),
                    Some(lease) => {
                        let source = caches[lease.copy_from.unwrap_or(lease.slot)].clone();
                        let source = source.expect("its source is free");
                        prop_assert!(lease.reused_tokens < prompt.len(), "the last token is evaluated");
                        prop_assert_eq!(&source[..lease.reused_tokens], &prompt[..lease.reused_tokens]);
                        prop_assert!(lease.reused_tokens.is_multiple_of(spacing));
                        prop_assert!(caches[lease.slot].take().is_some(), "it was taken");
                    }
                },
                Event::LeaseBranch => match slots.lease_any() {
                    None => prop_assert!(caches.iter().all(Option::is_none), "a slot was free"),
                    Some(slot) => prop_assert!(caches[slot].take().is_some(), "it was taken"),
                },
                Event::Release(which, cached) => {
                    let taken: Vec<usize> = (0..caches.len()).filter(|slot| caches[*slot].is_none()).collect();
                    if !taken.is_empty() {
                        let slot = taken[which % taken.len()];
                        slots.release(slot, cached.clone());
                        caches[slot] = Some(cached);
                    }
                }
            }
        }
    }
}
