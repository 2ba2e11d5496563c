//! Slots: llama.cpp sequence ids, each with what its part of the cache holds.
//!
//! Invariant: a free slot's cache holds exactly its `cached` tokens.

use tightwad_core::TokenId;

/// Tokens from which on a beginning is copied from a cache that is left to its own conversation.
const WORTH_COPYING: usize = 32;

#[derive(Debug, Default)]
struct Slot {
    taken: bool,
    cached: Vec<TokenId>,
    /// When it was given back; 0: it is empty.
    used: u64,
}

/// A slot for a prompt.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub slot: usize,
    /// Tokens of the prompt that its cache holds, once `copied` is done: at most all but the last, whose
    /// logits are needed.
    pub kept: usize,
    /// The slot whose cache is to be copied here first.
    pub copied: Option<usize>,
}

/// All slots of a context.
#[derive(Debug)]
pub(crate) struct Slots {
    slots: Vec<Slot>,
    /// A cache cannot be cut: it is of use only to a prompt that begins with all of it.
    whole: bool,
    clock: u64,
}

impl Slots {
    /// `count` empty slots; `whole`: their caches cannot be cut.
    pub(crate) fn new(count: u32, whole: bool) -> Self {
        Self { slots: (0..count).map(|_| Slot::default()).collect(), whole, clock: 0 }
    }

    /// Takes a free slot for `prompt`: the one whose cache begins most like it, if the prompt goes on with most
    /// of that; else, so that other conversations keep their caches, the one that was used longest ago.
    pub(crate) fn take(&mut self, prompt: &[TokenId]) -> Option<Place> {
        let most = prompt.len().saturating_sub(1);
        let common = |slot: &Slot| {
            let same = slot.cached.iter().zip(&prompt[..most]).take_while(|(a, b)| a == b).count();
            if self.whole && same < slot.cached.len() { 0 } else { same }
        };
        let free = self.slots.iter().enumerate().filter(|(_, slot)| !slot.taken);
        let (best, kept, cached) =
            free.map(|(index, slot)| (index, common(slot), slot.cached.len())).max_by_key(|best| best.1)?;
        let oldest = self.oldest()?;
        let place = if best == oldest || (kept > 0 && 2 * kept >= cached) {
            Place { slot: best, kept, copied: None }
        } else if kept >= WORTH_COPYING {
            Place { slot: oldest, kept, copied: Some(best) }
        } else {
            Place { slot: oldest, kept: common(&self.slots[oldest]), copied: None }
        };
        self.occupy(place.slot);
        Some(place)
    }

    /// Takes the free slot that was used longest ago, for a branch of a tree.
    pub(crate) fn borrow(&mut self) -> Option<usize> {
        let index = self.oldest()?;
        self.occupy(index);
        Some(index)
    }

    /// Gives `index` back; its cache holds `cached`.
    pub(crate) fn free(&mut self, index: usize, cached: Vec<TokenId>) {
        self.clock += 1;
        let used = if cached.is_empty() { 0 } else { self.clock };
        self.slots[index] = Slot { taken: false, cached, used };
    }

    fn occupy(&mut self, index: usize) {
        self.slots[index] = Slot { taken: true, ..Slot::default() };
    }

    /// The free slot that was used longest ago; of empty ones the lowest, so that the ids of one batch are
    /// neighbours, which llama.cpp needs to compute them together.
    fn oldest(&self) -> Option<usize> {
        let free = self.slots.iter().enumerate().filter(|(_, slot)| !slot.taken);
        free.min_by_key(|(_, slot)| slot.used).map(|(index, _)| index)
    }
}

#[cfg(test)]
mod properties;

#[cfg(test)]
mod tests {
    use super::*;

    fn place(slot: usize, kept: usize, copied: Option<usize>) -> Option<Place> {
        Some(Place { slot, kept, copied })
    }

    #[test]
    fn a_conversation_goes_on_where_it_was_and_the_last_token_is_left() {
        let mut slots = Slots::new(2, false);
        assert_eq!(slots.take(&[1, 2, 3]), place(0, 0, None));
        assert_eq!(slots.take(&[9]), place(1, 0, None));
        assert_eq!(slots.take(&[9]), None);
        slots.free(0, vec![1, 2, 3, 4]);
        slots.free(1, vec![1, 9]);
        assert_eq!(slots.take(&[1, 2, 3]), place(0, 2, None));
    }

    #[test]
    fn another_conversation_takes_what_was_used_longest_ago() {
        let mut slots = Slots::new(3, false);
        slots.take(&[7]);
        slots.free(0, vec![7, 8, 8, 8, 8]);
        assert_eq!(slots.take(&[7, 1, 2]), place(1, 0, None));
        slots.free(1, vec![7, 1, 2, 3, 4]);
        assert_eq!(slots.take(&[7, 5, 5]), place(2, 0, None));
        slots.free(2, vec![7, 5, 5, 5, 5]);
        // All are full: the first one is oldest, and has one token of it anyway.
        assert_eq!(slots.take(&[7, 6, 6]), place(0, 1, None));
        assert_eq!(slots.borrow(), Some(1));
        slots.free(1, Vec::new());
        assert_eq!(slots.borrow(), Some(1));
    }

    #[test]
    fn a_long_beginning_that_several_share_is_copied() {
        let mut slots = Slots::new(2, false);
        let system: Vec<TokenId> = (0..40).collect();
        let conversation = |own: TokenId| [system.clone(), vec![own; 60]].concat();
        slots.take(&conversation(100));
        slots.free(0, conversation(100));
        assert_eq!(slots.take(&conversation(200)), place(1, 40, Some(0)));
        slots.free(1, conversation(200));
        assert_eq!(slots.take(&conversation(100)), place(0, 99, None));
    }
    #[test]
    fn a_cache_that_cannot_be_cut_serves_only_prompts_that_begin_with_all_of_it() {
        let mut slots = Slots::new(2, true);
        slots.take(&[1]);
        slots.free(0, vec![1, 2, 3]);
        assert_eq!(slots.take(&[1, 2, 3]), place(1, 0, None));
        slots.free(1, vec![1, 2, 3]);
        assert_eq!(slots.take(&[1, 2, 3, 4]).map(|place| place.kept), Some(3));
    }
}
