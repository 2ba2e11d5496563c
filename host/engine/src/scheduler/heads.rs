//! The draft heads of a model, as drafters of its own sequences.
//!
//! A head reads pairs: the token at a position, and the hidden state of the position before it. The passes of the model
//! give the hidden states. The heads read the pairs later, in one pass: when a proposal needs them, or when many wait. So
//! most rejected drafts never reach the heads.
//!
//! Invariant: the heads' cache of a slot holds the positions before `read`. The waiting pairs begin at `read`, and end
//! before `evaluated`, unless the heads have already read the pair at `evaluated` for a proposal.

use tightwad_core::TokenId;

use crate::llama::heads::{HeadContext, HeadRow};
use crate::scheduler::rows::{MAX_ROWS, Row};

/// The heads of a model, with the state of each slot.
pub(crate) struct Heads<'a> {
    context: HeadContext<'a>,
    slots: Vec<HeadSlot>,
    hidden_size: usize,
}

/// What the heads know about a slot.
#[derive(Debug, Default, Clone)]
struct HeadSlot {
    /// The number of positions in the heads' cache.
    read: usize,
    /// The tokens of the waiting pairs.
    tokens: Vec<TokenId>,
    /// The hidden states of the waiting pairs.
    hidden: Vec<f32>,
    /// The number of positions that the model has evaluated.
    evaluated: usize,
    /// The hidden state of the last one of these; empty: it is not known.
    last: Vec<f32>,
}

impl HeadSlot {
    /// Removes the first `count` waiting pairs, which the heads have read.
    fn forget_pairs(&mut self, count: usize, hidden_size: usize) {
        self.tokens.drain(..count);
        self.hidden.drain(..count * hidden_size);
        self.read += count;
    }

    /// The position after the waiting pairs.
    fn end(&self) -> usize {
        self.read + self.tokens.len()
    }

    /// Adds the pair of `token` at `position`, unless the heads have read it for a proposal. `hidden` is the hidden state
    /// of this position.
    fn push(&mut self, position: usize, token: TokenId, hidden: &[f32]) {
        if position > self.end() {
            // The heads did not see the positions before it.
            *self = Self { read: position, ..Self::default() };
        }
        if position >= self.end() {
            self.tokens.push(token);
            // The first position has no position before it.
            self.last.resize(hidden.len(), 0.0);
            self.hidden.extend_from_slice(&self.last);
        }
        self.evaluated = position + 1;
        self.last.clear();
        self.last.extend_from_slice(hidden);
    }

    /// The hidden state of the position before `position`, if it is known.
    fn hidden_before(&self, position: usize, hidden_size: usize) -> Option<&[f32]> {
        if position == self.evaluated {
            return Some(self.last.as_slice()).filter(|last| !last.is_empty());
        }
        self.hidden.chunks(hidden_size).nth(position.checked_sub(self.read)?)
    }

    /// Forgets the positions from `position` on. Returns false if the heads' cache holds some of them.
    fn truncate(&mut self, position: usize, hidden_size: usize) -> bool {
        self.last = self.hidden_before(position, hidden_size).unwrap_or_default().to_vec();
        self.evaluated = self.evaluated.min(position);
        let kept = position.saturating_sub(self.read);
        self.tokens.truncate(kept);
        self.hidden.truncate(kept * hidden_size);
        let is_cached = position < self.read;
        self.read = self.read.min(position);
        !is_cached
    }
}

impl<'a> Heads<'a> {
    /// The heads of `context`, for `slots` slots.
    pub(crate) fn new(context: HeadContext<'a>, slots: usize, hidden_size: usize) -> Self {
        Self { context, slots: vec![HeadSlot::default(); slots], hidden_size }
    }

    /// Records a pass of the model over `rows`. `hidden_state` returns the hidden state of a row.
    pub(crate) fn record_pass<'h>(&mut self, rows: &[Row], hidden_state: impl Fn(usize) -> &'h [f32]) {
        for (index, row) in rows.iter().enumerate() {
            let slot = &mut self.slots[row.slot];
            slot.push(row.position, row.token, hidden_state(index));
            if slot.tokens.len() >= MAX_ROWS {
                self.read(row.slot, row.position + 1);
            }
        }
    }

    /// Lets the heads read the waiting pairs of `slot` before `end`. Returns false if they cannot.
    fn read(&mut self, slot: usize, end: usize) -> bool {
        let state = &self.slots[slot];
        let count = end.saturating_sub(state.read).min(state.tokens.len());
        if count == 0 {
            return true;
        }
        let pairs = state.tokens.iter().zip(state.hidden.chunks(self.hidden_size)).take(count);
        let rows = pairs.enumerate().map(|(index, (token, hidden))| HeadRow {
            slot,
            position: state.read + index,
            token: *token,
            hidden,
            logits: false,
        });
        let succeeded = self.context.forward(rows);
        self.slots[slot].forget_pairs(count, self.hidden_size);
        succeeded
    }

    /// Starts a proposal after `token` at `position`. The model has evaluated the tokens before it, and perhaps more.
    /// Returns false if the heads do not know the hidden state of the position before it.
    pub(crate) fn begin(&mut self, slot: usize, position: usize, token: TokenId) -> bool {
        let state = &self.slots[slot];
        let Some(hidden) = state.hidden_before(position, self.hidden_size).map(<[f32]>::to_vec) else {
            return false;
        };
        if state.end() < position || !self.read(slot, position) {
            return false;
        }
        // An earlier proposal may have begun at the same position.
        if self.slots[slot].read > position {
            self.truncate_cache(slot, position);
            self.slots[slot].read = position;
        }
        let state = &mut self.slots[slot];
        match state.tokens.is_empty() {
            true => state.read = position + 1,
            false => state.forget_pairs(1, self.hidden_size),
        }
        self.forward(slot, position, token, &hidden)
    }

    /// Continues a proposal by the proposed `token` at `position`. Returns false if the heads cannot.
    pub(crate) fn advance(&mut self, slot: usize, position: usize, token: TokenId) -> bool {
        let hidden = self.context.hidden_state(0).to_vec();
        self.forward(slot, position, token, &hidden)
    }

    fn forward(&mut self, slot: usize, position: usize, token: TokenId, hidden: &[f32]) -> bool {
        hidden.len() == self.hidden_size
            && self.context.forward(std::iter::once(HeadRow { slot, position, token, hidden, logits: true }))
    }

    /// The logits of the token after the last one of a proposal.
    pub(crate) fn logits(&self) -> &[f32] {
        self.context.logits(0)
    }

    /// Ends a proposal, whose tokens the heads forget.
    pub(crate) fn end(&mut self, slot: usize) {
        let read = self.slots[slot].read;
        self.truncate_cache(slot, read);
    }

    /// Removes the tokens of `slot` from `position` on.
    pub(crate) fn truncate(&mut self, slot: usize, position: usize) {
        if !self.slots[slot].truncate(position, self.hidden_size) {
            self.truncate_cache(slot, position);
        }
    }

    fn truncate_cache(&mut self, slot: usize, position: usize) {
        if !self.context.truncate(slot, position) {
            tracing::error!(slot, "llama.cpp failed to cut the cache of draft heads");
        }
    }

    /// Copies the state of slot `from` to slot `to`.
    pub(crate) fn copy(&mut self, from: usize, to: usize) {
        self.context.copy(from, to);
        self.slots[to] = self.slots[from].clone();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A slot after the tokens 0 to `count` - 1. The hidden state of a position is its number.
    fn slot_after(count: usize) -> HeadSlot {
        let mut slot = HeadSlot::default();
        (0..count).for_each(|position| slot.push(position, position as TokenId, &[position as f32]));
        slot
    }

    #[test]
    fn pairs_hold_the_hidden_state_of_the_position_before() {
        let slot = slot_after(4);
        assert_eq!(
            (slot.tokens, slot.hidden, slot.last),
            (vec![0, 1, 2, 3], vec![0.0, 0.0, 1.0, 2.0], vec![3.0])
        );
    }

    #[test]
    fn hidden_state_is_known_from_the_first_waiting_pair_on() {
        let mut slot = slot_after(6);
        slot.forget_pairs(3, 1);
        let known = |slot: &HeadSlot, position| slot.hidden_before(position, 1).map(<[f32]>::to_vec);
        assert_eq!(
            [2, 3, 5, 6, 7].map(|position| known(&slot, position)),
            [None, Some(vec![2.0]), Some(vec![4.0]), Some(vec![5.0]), None]
        );
        assert!(slot.truncate(6, 1) && slot.truncate(4, 1));
        assert_eq!((slot.end(), slot.evaluated, known(&slot, 4)), (4, 4, Some(vec![3.0])));
        assert!(!slot.truncate(2, 1));
        assert_eq!((slot.read, slot.tokens.len(), known(&slot, 2)), (2, 0, None));
    }

    #[test]
    fn positions_of_a_proposal_are_not_read_again() {
        let mut slot = slot_after(3);
        slot.forget_pairs(3, 1);
        // A proposal after token 30 at position 3, which the model then evaluates.
        slot.read = 4;
        slot.push(3, 30, &[3.0]);
        assert_eq!((slot.end(), slot.evaluated), (4, 4));
        slot.push(4, 40, &[4.0]);
        assert_eq!((slot.end(), slot.hidden.clone()), (5, vec![3.0]));
        slot.push(9, 90, &[9.0]);
        assert_eq!((slot.read, slot.tokens, slot.hidden), (9, vec![90], vec![0.0]));
    }
}
