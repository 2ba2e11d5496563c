//! The draft heads of a model, as drafters of its own sequences.
//!
//! A head reads pairs: the token at a position, and the hidden state of the position before it. The passes of the model
//! give the hidden states. The heads read the pairs later, in one pass: when a proposal needs them, or when many wait. So
//! most rejected drafts never reach the heads.
//!
//! Invariant: the heads' cache of a slot holds the positions before `read`. The waiting pairs begin at `read`.

use tightwad_core::TokenId;

use crate::llama::heads::{HeadContext, HeadRow};
use crate::scheduler::context::{MAX_ROWS, Row};

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
    /// The hidden state of the last position that the model has evaluated; empty: it is not known.
    last: Vec<f32>,
}

impl HeadSlot {
    /// The position after the waiting pairs.
    fn end(&self) -> usize {
        self.read + self.tokens.len()
    }

    /// Adds the pair of `token` at `position`, unless the heads have read it for a proposal.
    fn push(&mut self, position: usize, token: TokenId, hidden_size: usize) {
        if position < self.end() {
            return;
        }
        if position > self.end() {
            // The heads did not see the positions before it.
            *self = Self { read: position, ..Self::default() };
        }
        self.tokens.push(token);
        // The first position has no position before it.
        self.last.resize(hidden_size, 0.0);
        self.hidden.extend_from_slice(&self.last);
    }

    /// Forgets the positions from `position` on. Returns false if the heads' cache holds some of them.
    fn truncate(&mut self, position: usize, hidden_size: usize) -> bool {
        if position >= self.end() {
            return true;
        }
        let is_waiting = position >= self.read;
        let kept = position.saturating_sub(self.read);
        self.last.clear();
        if is_waiting {
            self.last.extend(&self.hidden[kept * hidden_size..(kept + 1) * hidden_size]);
        }
        self.tokens.truncate(kept);
        self.hidden.truncate(kept * hidden_size);
        self.read = self.read.min(position);
        is_waiting
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
            slot.push(row.position, row.token, self.hidden_size);
            slot.last.clear();
            slot.last.extend_from_slice(hidden_state(index));
            if slot.tokens.len() >= MAX_ROWS {
                self.read(row.slot);
            }
        }
    }

    /// Lets the heads read the waiting pairs of `slot`. Returns false if they cannot.
    fn read(&mut self, slot: usize) -> bool {
        let state = &self.slots[slot];
        if state.tokens.is_empty() {
            return true;
        }
        let hidden = state.hidden.chunks(self.hidden_size);
        let rows = state.tokens.iter().zip(hidden).enumerate().map(|(index, (token, hidden))| HeadRow {
            slot,
            position: state.read + index,
            token: *token,
            hidden,
            logits: false,
        });
        let succeeded = self.context.forward(rows);
        let state = &mut self.slots[slot];
        state.read = state.end();
        state.tokens.clear();
        state.hidden.clear();
        succeeded
    }

    /// Starts a proposal after `token`, the last one of a sequence at `position`. The model has evaluated the tokens
    /// before it. Returns false if the heads do not know the hidden state of the last of these.
    pub(crate) fn begin(&mut self, slot: usize, position: usize, token: TokenId) -> bool {
        let state = &self.slots[slot];
        if state.last.len() != self.hidden_size || state.end() < position {
            return false;
        }
        let hidden = state.last.clone();
        // An earlier proposal may have begun at the same position.
        self.slots[slot].read = self.slots[slot].read.min(position);
        let ready = self.context.truncate(slot, position) && self.read(slot);
        if ready {
            self.slots[slot].read = position + 1;
        }
        ready && self.forward(slot, position, token, &hidden)
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

    /// A slot after tokens 0, 1, … at the positions of `range`. The hidden state of a position is its number.
    fn slot_after(range: std::ops::Range<usize>) -> HeadSlot {
        let mut slot = HeadSlot::default();
        for position in range {
            slot.push(position, position as TokenId, 1);
            slot.last = vec![position as f32];
        }
        slot
    }

    #[test]
    fn pairs_hold_the_hidden_state_of_the_position_before() {
        let slot = slot_after(0..4);
        assert_eq!(
            (slot.tokens, slot.hidden, slot.last),
            (vec![0, 1, 2, 3], vec![0.0, 0.0, 1.0, 2.0], vec![3.0])
        );
    }

    #[test]
    fn truncate_restores_the_last_hidden_state() {
        let mut slot = slot_after(0..6);
        assert!(slot.truncate(6, 1) && slot.truncate(4, 1));
        assert_eq!((slot.end(), slot.last.clone()), (4, vec![3.0]));
        slot.read = slot.end();
        slot.tokens.clear();
        slot.hidden.clear();
        assert!(!slot.truncate(2, 1));
        assert_eq!((slot.read, slot.last), (2, vec![]));
    }

    #[test]
    fn positions_of_a_proposal_are_not_read_again() {
        let mut slot = slot_after(0..3);
        (slot.read, slot.tokens, slot.hidden) = (4, Vec::new(), Vec::new());
        slot.push(3, 30, 1);
        assert_eq!(slot.end(), 4);
        slot.last = vec![3.0];
        slot.push(4, 40, 1);
        assert_eq!((slot.end(), slot.hidden.clone()), (5, vec![3.0]));
        slot.push(9, 90, 1);
        assert_eq!((slot.read, slot.tokens, slot.hidden), (9, vec![90], vec![0.0]));
    }
}
