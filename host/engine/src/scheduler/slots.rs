//! Slots: llama.cpp sequence ids, each with what its part of the cache holds.
//!
//! Invariant: a free slot's cache holds exactly its `cached` tokens.

use crate::TokenId;

#[derive(Debug, Default)]
struct Slot {
    taken: bool,
    cached: Vec<TokenId>,
}

/// All slots of a context.
#[derive(Debug)]
pub(super) struct Slots(Vec<Slot>);

impl Slots {
    pub(super) fn new(count: u32) -> Self {
        Self((0..count).map(|_| Slot::default()).collect())
    }

    /// Takes the free slot whose cache begins most like `prompt`; returns it with the number of
    /// tokens to keep: at most all but the last, whose logits are needed.
    pub(super) fn take(&mut self, prompt: &[TokenId]) -> Option<(usize, usize)> {
        let most = prompt.len().saturating_sub(1);
        let common =
            |slot: &Slot| slot.cached.iter().zip(&prompt[..most]).take_while(|(a, b)| a == b).count();
        // Of equals, the one whose cache is worth least; then the lowest, so that the ids of one
        // batch are neighbours, which llama.cpp needs to compute them together.
        let (index, kept) = self
            .0
            .iter()
            .enumerate()
            .filter(|(_, slot)| !slot.taken)
            .map(|(index, slot)| (index, common(slot), slot.cached.len()))
            .max_by(|a, b| a.1.cmp(&b.1).then(b.2.cmp(&a.2)).then(b.0.cmp(&a.0)))
            .map(|(index, common, _)| (index, common))?;
        self.0[index] = Slot { taken: true, cached: Vec::new() };
        Some((index, kept))
    }

    /// Takes the free slot whose cache is worth least, for a branch of a tree.
    pub(super) fn borrow(&mut self) -> Option<usize> {
        let free = self.0.iter().enumerate().filter(|(_, slot)| !slot.taken);
        let index = free.min_by_key(|(_, slot)| slot.cached.len()).map(|(index, _)| index)?;
        self.0[index] = Slot { taken: true, cached: Vec::new() };
        Some(index)
    }

    /// Gives `index` back; its cache holds `cached`.
    pub(super) fn free(&mut self, index: usize, cached: Vec<TokenId>) {
        self.0[index] = Slot { taken: false, cached };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_common_prefix_wins_and_the_last_token_is_left() {
        let mut slots = Slots::new(2);
        assert_eq!(slots.take(&[1, 2, 3]), Some((0, 0)));
        assert_eq!(slots.take(&[9]), Some((1, 0)));
        assert_eq!(slots.take(&[9]), None);
        slots.free(0, vec![1, 2, 3, 4]);
        slots.free(1, vec![1, 9]);
        assert_eq!(slots.take(&[1, 2, 3]), Some((0, 2)));
    }

    #[test]
    fn of_equals_the_emptiest_is_taken() {
        let mut slots = Slots::new(2);
        slots.take(&[7]);
        slots.free(0, vec![7, 8]);
        assert_eq!(slots.take(&[1, 2]), Some((1, 0)));
    }
}
