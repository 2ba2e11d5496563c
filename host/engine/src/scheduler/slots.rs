//! Slots: llama.cpp sequence ids, each with the contents of its cache.
//!
//! Invariant: a free slot's cache holds exactly its `cached` tokens.

use tightwad_core::TokenId;

/// The minimum length of a common prefix that is copied from the cache of another conversation.
const MIN_COPIED_TOKENS: usize = 32;

#[derive(Debug, Default)]
struct Slot {
    leased: bool,
    cached: Vec<TokenId>,
    /// The value of `release_count` at the release; 0: the slot is empty.
    released_at: u64,
}

/// A slot that a sequence has leased.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SlotLease {
    pub slot: usize,
    /// Tokens of the prompt that the cache holds after the copy. At most all but the last one, because its
    /// logits are needed.
    pub reused_tokens: usize,
    /// The slot whose cache must be copied to `slot` first.
    pub copy_from: Option<usize>,
}

/// All slots of a context.
#[derive(Debug)]
pub(crate) struct Slots {
    slots: Vec<Slot>,
    release_count: u64,
}

impl Slots {
    /// `count` empty slots.
    pub(crate) fn new(count: u32) -> Self {
        Self { slots: (0..count).map(|_| Slot::default()).collect(), release_count: 0 }
    }

    /// Empties and releases all slots: their caches are lost.
    pub(crate) fn reset(&mut self) {
        self.slots.fill_with(Slot::default);
    }

    /// Leases a free slot for `prompt`. Prefers the slot with the longest common prefix, if this is at least
    /// half of its cache. Otherwise other conversations keep their caches. The least recently used slot is
    /// leased, with a copy of a long common prefix. `reusable` returns how many of a slot's first common tokens need no
    /// evaluation.
    pub(crate) fn lease(
        &mut self,
        prompt: &[TokenId],
        reusable: impl Fn(usize, usize) -> usize,
    ) -> Option<SlotLease> {
        let max_reused = prompt.len().saturating_sub(1);
        let common_prefix = |index: usize| {
            let cached = self.slots[index].cached.iter();
            reusable(index, cached.zip(&prompt[..max_reused]).take_while(|(a, b)| a == b).count())
        };
        let free = self.slots.iter().enumerate().filter(|(_, slot)| !slot.leased);
        let (best, reused_tokens, cached) = free
            .map(|(index, slot)| (index, common_prefix(index), slot.cached.len()))
            .max_by_key(|best| best.1)?;
        let oldest = self.least_recently_used()?;
        let lease = if best == oldest || (reused_tokens > 0 && 2 * reused_tokens >= cached) {
            SlotLease { slot: best, reused_tokens, copy_from: None }
        } else if reused_tokens >= MIN_COPIED_TOKENS {
            SlotLease { slot: oldest, reused_tokens, copy_from: Some(best) }
        } else {
            SlotLease { slot: oldest, reused_tokens: common_prefix(oldest), copy_from: None }
        };
        self.occupy(lease.slot);
        Some(lease)
    }

    /// Leases the least recently used slot, whatever its cache holds: for a branch of a tree, or after a reset.
    pub(crate) fn lease_any(&mut self) -> Option<usize> {
        let index = self.least_recently_used()?;
        self.occupy(index);
        Some(index)
    }

    /// Releases slot `index`, whose cache holds `cached`.
    pub(crate) fn release(&mut self, index: usize, cached: Vec<TokenId>) {
        self.release_count += 1;
        let released_at = if cached.is_empty() { 0 } else { self.release_count };
        self.slots[index] = Slot { leased: false, cached, released_at };
    }

    fn occupy(&mut self, index: usize) {
        self.slots[index] = Slot { leased: true, ..Slot::default() };
    }

    /// The least recently used free slot. The first of several empty slots is chosen, because llama.cpp
    /// computes only consecutive slots together.
    fn least_recently_used(&self) -> Option<usize> {
        let free = self.slots.iter().enumerate().filter(|(_, slot)| !slot.leased);
        free.min_by_key(|(_, slot)| slot.released_at).map(|(index, _)| index)
    }
}

#[cfg(test)]
mod properties;

#[cfg(test)]
mod tests {
    use super::*;

    /// The caches of attention layers can be cut at any token.
    fn all(_: usize, common: usize) -> usize {
        common
    }

    fn lease(slot: usize, reused_tokens: usize, copy_from: Option<usize>) -> Option<SlotLease> {
        Some(SlotLease { slot, reused_tokens, copy_from })
    }

    #[test]
    fn lease_reuses_the_cache_except_the_last_token() {
        let mut slots = Slots::new(2);
        assert_eq!(slots.lease(&[1, 2, 3], all), lease(0, 0, None));
        assert_eq!(slots.lease(&[9], all), lease(1, 0, None));
        assert_eq!(slots.lease(&[9], all), None);
        slots.release(0, vec![1, 2, 3, 4]);
        slots.release(1, vec![1, 9]);
        assert_eq!(slots.lease(&[1, 2, 3], all), lease(0, 2, None));
    }

    #[test]
    fn lease_for_another_conversation_takes_the_least_recently_used_slot() {
        let mut slots = Slots::new(3);
        slots.lease(&[7], all);
        slots.release(0, vec![7, 8, 8, 8, 8]);
        assert_eq!(slots.lease(&[7, 1, 2], all), lease(1, 0, None));
        slots.release(1, vec![7, 1, 2, 3, 4]);
        assert_eq!(slots.lease(&[7, 5, 5], all), lease(2, 0, None));
        slots.release(2, vec![7, 5, 5, 5, 5]);
        // All slots are full. The first one is the oldest, and one of its tokens is reused.
        assert_eq!(slots.lease(&[7, 6, 6], all), lease(0, 1, None));
        assert_eq!(slots.lease_any(), Some(1));
        slots.release(1, Vec::new());
        assert_eq!(slots.lease_any(), Some(1));
    }

    #[test]
    fn lease_copies_a_long_common_prefix() {
        let mut slots = Slots::new(2);
        let system: Vec<TokenId> = (0..40).collect();
        let conversation = |token: TokenId| [system.clone(), vec![token; 60]].concat();
        slots.lease(&conversation(100), all);
        slots.release(0, conversation(100));
        assert_eq!(slots.lease(&conversation(200), all), lease(1, 40, Some(0)));
        slots.release(1, conversation(200));
        assert_eq!(slots.lease(&conversation(100), all), lease(0, 99, None));
    }

    #[test]
    fn lease_reuses_a_recurrent_cache_from_its_checkpoints() {
        let mut slots = Slots::new(1);
        let checkpoints = |_: usize, common: usize| if common == 6 { 6 } else { common - common % 4 };
        slots.lease(&[1], checkpoints);
        slots.release(0, vec![1, 2, 3, 4, 5, 6]);
        assert_eq!(slots.lease(&[1, 2, 3, 4, 5, 9], checkpoints), lease(0, 4, None));
        slots.release(0, vec![1, 2, 3, 4, 5, 6]);
        assert_eq!(slots.lease(&[1, 2, 3, 4, 5, 6, 9], checkpoints), lease(0, 6, None));
        slots.release(0, vec![1, 2, 3, 4, 5, 6]);
        assert_eq!(slots.lease(&[1, 2, 9], checkpoints), lease(0, 0, None));
    }
}
