//! Checkpoints: copies of recurrent states in host memory.
//!
//! Invariant: `bytes` is the sum of the sizes of all copies, and at most `max_bytes`. The checkpoints of a slot are in the
//! order of their positions, at most one for each position and at most one of [`Purpose::Round`].

use std::sync::Arc;

/// The copies of recurrent states of all slots.
#[derive(Debug, Default)]
pub(crate) struct Checkpoints {
    /// The checkpoints of each slot.
    slots: Vec<Vec<Checkpoint>>,
    bytes: u64,
    max_bytes: u64,
}

/// The state of a sequence after its first `position` tokens.
#[derive(Debug, Clone)]
pub(crate) struct Checkpoint {
    /// The number of tokens that the state has seen.
    pub position: usize,
    pub purpose: Purpose,
    /// llama.cpp's copy of the state. Slots with the same beginning share it.
    pub state: Arc<Vec<u8>>,
}

/// The use of a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Later requests may begin here.
    Conversation,
    /// The next verification or proposal may return here. It replaces the last checkpoint of its kind.
    Round,
}

impl Checkpoints {
    /// No checkpoints of `slots` slots, with room for `max_bytes` bytes.
    pub(crate) fn new(slots: usize, max_bytes: u64) -> Self {
        Self { slots: vec![Vec::new(); slots], bytes: 0, max_bytes }
    }

    /// The last checkpoint of `slot` that has seen at most `position` tokens.
    pub(crate) fn last(&self, slot: usize, position: usize) -> Option<&Checkpoint> {
        self.slots[slot].iter().rev().find(|checkpoint| checkpoint.position <= position)
    }

    /// The position of the last checkpoint of `slot` for later requests; 0: there is none.
    pub(crate) fn last_of_conversation(&self, slot: usize) -> usize {
        let mut checkpoints = self.slots[slot].iter().rev();
        let found = checkpoints.find(|checkpoint| checkpoint.purpose == Purpose::Conversation);
        found.map_or(0, |checkpoint| checkpoint.position)
    }

    /// Adds a checkpoint to `slot`, whose tokens it replaces from its position on. Makes room by dropping other
    /// checkpoints. One that is larger than all the room is not kept.
    pub(crate) fn add(&mut self, slot: usize, checkpoint: Checkpoint) {
        self.cut(slot, checkpoint.position.saturating_sub(1));
        if checkpoint.purpose == Purpose::Round {
            drop(self.take_round(slot));
        }
        let bytes = checkpoint.state.len() as u64;
        if bytes > self.max_bytes {
            return;
        }
        self.bytes += bytes;
        self.slots[slot].push(checkpoint);
        while self.bytes > self.max_bytes && self.drop_one(slot) {}
    }

    /// Drops the slot's checkpoint of [`Purpose::Round`], and returns its memory for the next one; empty if there is none.
    pub(crate) fn take_round(&mut self, slot: usize) -> Vec<u8> {
        let checkpoints = &mut self.slots[slot];
        let index = checkpoints.iter().position(|checkpoint| checkpoint.purpose == Purpose::Round);
        let Some(checkpoint) = index.map(|index| checkpoints.remove(index)) else { return Vec::new() };
        let bytes = checkpoint.state.len() as u64;
        match Arc::try_unwrap(checkpoint.state) {
            Ok(memory) => {
                self.bytes -= bytes;
                memory
            }
            Err(_) => Vec::new(),
        }
    }

    /// Drops the checkpoints of `slot` that have seen more than `position` tokens.
    pub(crate) fn cut(&mut self, slot: usize, position: usize) {
        let kept = self.slots[slot].partition_point(|checkpoint| checkpoint.position <= position);
        let dropped: Vec<Checkpoint> = self.slots[slot].drain(kept..).collect();
        dropped.into_iter().for_each(|checkpoint| self.release(checkpoint));
    }

    /// Drops all checkpoints of `slot`.
    pub(crate) fn clear(&mut self, slot: usize) {
        let dropped = std::mem::take(&mut self.slots[slot]);
        dropped.into_iter().for_each(|checkpoint| self.release(checkpoint));
    }

    /// Gives slot `to` the checkpoints of slot `from` as well.
    pub(crate) fn copy(&mut self, from: usize, to: usize) {
        self.clear(to);
        self.slots[to] = self.slots[from].clone();
    }

    fn release(&mut self, checkpoint: Checkpoint) {
        if let Some(state) = Arc::into_inner(checkpoint.state) {
            self.bytes -= state.len() as u64;
        }
    }

    /// Drops one checkpoint, but not the last one of slot `kept`. Returns false if there is no other.
    ///
    /// The slot with the most checkpoints loses the one whose neighbours are closest: then the rest still cover the whole
    /// conversation. Its last two stay longest, because the next request begins near the end.
    fn drop_one(&mut self, kept: usize) -> bool {
        let spare = |slot: usize| self.slots[slot].len().saturating_sub(usize::from(slot == kept));
        let fullest = (0..self.slots.len()).max_by_key(|slot| spare(*slot));
        let Some(slot) = fullest.filter(|slot| spare(*slot) > 0) else { return false };
        let position = |index: usize| self.slots[slot][index].position;
        let gap = |index: usize| position(index + 1) - if index == 0 { 0 } else { position(index - 1) };
        let inner = 0..self.slots[slot].len().saturating_sub(2);
        let index = inner.min_by_key(|index| gap(*index)).unwrap_or(0);
        let dropped = self.slots[slot].remove(index);
        self.release(dropped);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint(position: usize) -> Checkpoint {
        Checkpoint { position, purpose: Purpose::Conversation, state: Arc::new(vec![0; 10]) }
    }

    fn positions(checkpoints: &Checkpoints, slot: usize) -> Vec<usize> {
        checkpoints.slots[slot].iter().map(|checkpoint| checkpoint.position).collect()
    }

    #[test]
    fn last_is_the_nearest_before_a_position() {
        let mut checkpoints = Checkpoints::new(2, 1000);
        for position in [100, 200, 300] {
            checkpoints.add(0, checkpoint(position));
        }
        let last = |position| checkpoints.last(0, position).map(|checkpoint| checkpoint.position);
        assert_eq!([99, 100, 299, 900].map(last), [None, Some(100), Some(200), Some(300)]);
        assert!(checkpoints.last(1, 900).is_none());
    }

    #[test]
    fn add_replaces_later_checkpoints() {
        let mut checkpoints = Checkpoints::new(1, 1000);
        for position in [100, 200, 300, 200, 250] {
            checkpoints.add(0, checkpoint(position));
        }
        assert_eq!(positions(&checkpoints, 0), [100, 200, 250]);
        assert_eq!(checkpoints.bytes, 30);
        checkpoints.cut(0, 200);
        assert_eq!((positions(&checkpoints, 0), checkpoints.bytes), (vec![100, 200], 20));
    }

    #[test]
    fn full_memory_keeps_the_ends_and_spreads_the_rest() {
        let mut checkpoints = Checkpoints::new(2, 50);
        checkpoints.add(1, checkpoint(7));
        for position in [100, 200, 300, 400, 500, 520, 540] {
            checkpoints.add(0, checkpoint(position));
        }
        assert_eq!(positions(&checkpoints, 1), [7]);
        assert_eq!(positions(&checkpoints, 0).len(), 4);
        assert!(positions(&checkpoints, 0).ends_with(&[520, 540]), "{:?}", positions(&checkpoints, 0));
        assert_eq!(checkpoints.bytes, 50);
    }

    #[test]
    fn other_slots_make_room_for_the_last_checkpoint() {
        let mut checkpoints = Checkpoints::new(2, 10);
        checkpoints.add(1, checkpoint(7));
        checkpoints.add(0, checkpoint(9));
        assert_eq!((positions(&checkpoints, 0), positions(&checkpoints, 1)), (vec![9], vec![]));
        checkpoints.add(0, Checkpoint { state: Arc::new(vec![0; 11]), ..checkpoint(10) });
        assert_eq!((positions(&checkpoints, 0), checkpoints.bytes), (vec![9], 10));
    }

    #[test]
    fn slots_share_copied_checkpoints() {
        let mut checkpoints = Checkpoints::new(2, 50);
        for position in [1, 2] {
            checkpoints.add(0, checkpoint(position));
        }
        checkpoints.copy(0, 1);
        assert_eq!((positions(&checkpoints, 1), checkpoints.bytes), (vec![1, 2], 20));
        checkpoints.clear(0);
        assert_eq!(checkpoints.bytes, 20);
        checkpoints.cut(1, 1);
        assert_eq!((positions(&checkpoints, 1), checkpoints.bytes), (vec![1], 10));
    }

    #[test]
    fn slot_has_one_checkpoint_of_a_round() {
        let round = |position| Checkpoint { purpose: Purpose::Round, ..checkpoint(position) };
        let mut checkpoints = Checkpoints::new(1, 50);
        checkpoints.add(0, checkpoint(1));
        for position in [2, 3] {
            checkpoints.add(0, round(position));
        }
        assert_eq!((positions(&checkpoints, 0), checkpoints.bytes), (vec![1, 3], 20));
        assert_eq!(checkpoints.last_of_conversation(0), 1);
        assert_eq!(checkpoints.take_round(0).len(), 10);
        assert_eq!((positions(&checkpoints, 0), checkpoints.bytes), (vec![1], 10));
    }
}
