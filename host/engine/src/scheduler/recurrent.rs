//! Rollback of recurrent states.
//!
//! The cache of an attention layer can be cut at any token. The state of a recurrent layer (Mamba, gated delta net, short
//! convolution) is one sum over all tokens. Two ways lead back to an earlier state:
//!
//! - llama.cpp keeps snapshots of the states before the last tokens of a pass, for some architectures. Returning to one
//!   costs nothing, but only once, and only until the next pass: that pass may move states without their snapshots.
//! - A checkpoint is a copy of a state in host memory. The tokens after it are evaluated again.

use std::sync::Arc;

use crate::llama::context::LlamaContext;
use crate::scheduler::checkpoints::{Checkpoint, Checkpoints, Purpose};
use crate::scheduler::rows::Row;

/// The number of tokens between two checkpoints of a conversation.
pub(crate) const CHECKPOINT_INTERVAL: usize = 256;
/// The number of tokens from which on a checkpoint of a conversation pays. Fewer are soon evaluated again.
pub(crate) const MIN_SAVED_TOKENS: usize = 64;

/// The recurrent states of all slots.
pub(crate) struct RecurrentStates {
    checkpoints: Checkpoints,
    /// The number of snapshots that llama.cpp keeps for each slot.
    snapshots: usize,
    slots: Vec<SlotState>,
}

/// The recurrent state of a slot.
#[derive(Debug, Default, Clone, Copy)]
struct SlotState {
    /// The number of tokens that the state has seen.
    length: usize,
    /// The number of last tokens that snapshots can take back.
    removable: usize,
    /// True after a return to a snapshot, until the next pass. llama.cpp cannot share such a state.
    is_rolled_back: bool,
    /// True after a failed pass.
    is_unknown: bool,
}

impl RecurrentStates {
    /// The empty states of `slots` slots. Checkpoints take at most `max_bytes` bytes.
    pub(crate) fn new(slots: usize, snapshots: usize, max_bytes: u64) -> Self {
        let checkpoints = Checkpoints::new(slots, max_bytes);
        Self { checkpoints, snapshots, slots: vec![SlotState::default(); slots] }
    }

    /// Records a pass over `rows`.
    pub(crate) fn record_pass(&mut self, rows: &[Row], succeeded: bool) {
        self.slots.iter_mut().for_each(|slot| slot.removable = 0);
        for rows in rows.chunk_by(|a, b| a.slot == b.slot) {
            let Some(last) = rows.last() else { continue };
            self.slots[last.slot] = SlotState {
                length: last.position + 1,
                removable: (rows.len() - 1).min(self.snapshots),
                is_rolled_back: false,
                is_unknown: !succeeded,
            };
        }
    }

    /// The number of tokens that a prompt with `common` first tokens of `slot` need not evaluate again.
    pub(crate) fn reusable(&self, slot: usize, common: usize) -> usize {
        if common == self.slots[slot].length {
            return common;
        }
        self.checkpoints.last(slot, common).map_or(0, |checkpoint| checkpoint.position)
    }

    /// Returns to the state of `slot` after `position` tokens, or to an earlier one. Returns the number of tokens that
    /// this state has seen; `None`: there is none, and the slot must be cleared.
    pub(crate) fn truncate(
        &mut self,
        llama: &mut LlamaContext<'_>,
        slot: usize,
        position: usize,
    ) -> Option<usize> {
        let state = self.slots[slot];
        if !state.is_unknown && state.length == position {
            return Some(position);
        }
        self.checkpoints.cut(slot, position);
        let removed = state.length.saturating_sub(position);
        if !state.is_unknown && removed <= state.removable && llama.truncate(slot, position) {
            self.slots[slot] = SlotState { length: position, is_rolled_back: true, ..SlotState::default() };
            return Some(position);
        }
        let checkpoint = self.checkpoints.last(slot, position)?;
        let length = checkpoint.position;
        let restored = llama.restore_recurrent_state(slot, &checkpoint.state);
        self.slots[slot] = SlotState { length, ..SlotState::default() };
        // The attention layers still hold the later tokens.
        (restored && llama.truncate(slot, length)).then_some(length)
    }

    /// Forgets the state of `slot`.
    pub(crate) fn clear(&mut self, slot: usize) {
        self.checkpoints.clear(slot);
        self.slots[slot] = SlotState::default();
    }

    /// Copies the cache of slot `from` to slot `to`.
    pub(crate) fn copy(&mut self, llama: &mut LlamaContext<'_>, from: usize, to: usize) {
        let rolled_back = self.slots[from].is_rolled_back;
        let state = rolled_back.then(|| llama.copy_recurrent_state(from, Vec::new())).flatten();
        llama.copy_sequence(from, to);
        self.checkpoints.copy(from, to);
        self.slots[from].removable = 0;
        let restored = !rolled_back || state.is_some_and(|state| llama.restore_recurrent_state(to, &state));
        self.slots[to] =
            SlotState { length: self.slots[from].length, is_unknown: !restored, ..SlotState::default() };
    }

    /// Prepares `slot` for the rejection of up to `draft` tokens of the next pass. `exactly`: snapshots do not suffice,
    /// because the pass may have to be repeated.
    pub(crate) fn prepare_rejection(
        &mut self,
        llama: &mut LlamaContext<'_>,
        slot: usize,
        draft: usize,
        exactly: bool,
    ) {
        if draft > self.snapshots || exactly {
            self.save(llama, slot, Purpose::Round);
        }
    }

    /// Saves the state of `slot` if its last checkpoint is long ago.
    pub(crate) fn save_at_interval(&mut self, llama: &mut LlamaContext<'_>, slot: usize) {
        if self.slots[slot].length >= self.checkpoints.last_of_conversation(slot) + CHECKPOINT_INTERVAL {
            self.save(llama, slot, Purpose::Conversation);
        }
    }

    /// Saves the state of `slot`, unless it is saved.
    pub(crate) fn save(&mut self, llama: &mut LlamaContext<'_>, slot: usize, purpose: Purpose) {
        let position = self.slots[slot].length;
        let saved = self.checkpoints.last(slot, position).map(|saved| (saved.position, saved.purpose));
        let is_saved = saved.is_some_and(|(at, kept)| {
            at == position && (kept == Purpose::Conversation || purpose == Purpose::Round)
        });
        let is_short = purpose == Purpose::Conversation && position < MIN_SAVED_TOKENS;
        if position == 0 || is_short || is_saved || self.slots[slot].is_unknown {
            return;
        }
        let memory = if purpose == Purpose::Round { self.checkpoints.take_round(slot) } else { Vec::new() };
        if let Some(state) = llama.copy_recurrent_state(slot, memory) {
            self.checkpoints.add(slot, Checkpoint { position, purpose, state: Arc::new(state) });
        }
    }
}
