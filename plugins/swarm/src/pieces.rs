//! The missing pieces, their rarity, and the partial ones.
//!
//! Invariant: a wanted, incomplete piece is in exactly one place of its priority group: in the rarity level of its
//! copies, among the partial pieces, or in flight. No other piece is in any place.

use tightwad_plugin_sdk::piece_picker::Task;

use crate::bit_set::BitSet;
use crate::rng::Rng;
use crate::settings::Order;

/// When a piece is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// Before the others.
    Urgent,
    /// After the urgent pieces.
    Later,
}

impl Priority {
    /// Both, the urgent one first.
    pub const ALL: [Self; 2] = [Self::Urgent, Self::Later];
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PieceState {
    /// Not wanted, or complete.
    Inactive,
    Missing,
    Partial,
    InFlight,
}

#[derive(Debug, Clone)]
struct Piece {
    size: u64,
    /// Bytes on this machine.
    kept_bytes: u64,
    /// The number of peers that have it or fetch it.
    copies: u32,
    priority: Priority,
    state: PieceState,
}

#[derive(Debug, Clone, Default)]
struct RarityLevel {
    pieces: BitSet,
    count: u32,
}

/// The pieces of one priority.
#[derive(Debug, Clone, Default)]
struct PriorityGroup {
    /// Missing pieces by level. No peer has the pieces of level 0; the order defines the other levels.
    levels: Vec<RarityLevel>,
    /// The levels above 0 that have pieces.
    filled: BitSet,
    /// All pieces of the levels above 0.
    missing: BitSet,
    /// Pieces with some bytes on this machine.
    partial: BitSet,
    /// Pieces in flight.
    in_flight: BitSet,
}

/// All pieces of a manifest.
#[derive(Debug, Clone)]
pub struct Pieces {
    order: Order,
    all: Vec<Piece>,
    groups: [PriorityGroup; 2],
    /// Bytes that are wanted and missing.
    missing_bytes: u64,
}

impl Pieces {
    /// Creates the pieces of a task.
    #[must_use]
    pub fn new(task: &Task, order: Order) -> Self {
        let piece = |size: &u64| Piece {
            size: *size,
            kept_bytes: 0,
            copies: 0,
            priority: Priority::Later,
            state: PieceState::Inactive,
        };
        let none = BitSet::new(task.piece_sizes.len());
        let group = PriorityGroup {
            missing: none.clone(),
            partial: none.clone(),
            in_flight: none,
            ..PriorityGroup::default()
        };
        let mut pieces = Self {
            order,
            all: task.piece_sizes.iter().map(piece).collect(),
            groups: [group.clone(), group],
            missing_bytes: 0,
        };
        for (at, piece_index) in (0..).zip(&task.wanted) {
            let Some(piece) = pieces.all.get_mut(*piece_index as usize) else { continue };
            if piece.state == PieceState::Inactive {
                piece.priority = if at < task.urgent { Priority::Urgent } else { Priority::Later };
                pieces.missing_bytes += piece.size;
                pieces.set_state(*piece_index, PieceState::Missing);
            }
        }
        pieces
    }

    /// The number of pieces of the manifest, wanted or not.
    #[must_use]
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// True if the manifest has no pieces.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The missing bytes of all pieces.
    #[must_use]
    pub fn missing_bytes(&self) -> u64 {
        self.missing_bytes
    }

    /// The missing bytes of `piece`.
    #[must_use]
    pub fn missing_bytes_of(&self, piece: u32) -> u64 {
        self.all.get(piece as usize).map_or(0, |piece| piece.size.saturating_sub(piece.kept_bytes))
    }

    /// The share of `piece` that `bytes` bytes are, 0 to 1.
    #[must_use]
    pub fn fraction(&self, piece: u32, bytes: u64) -> f64 {
        self.all.get(piece as usize).map_or(0.0, |piece| bytes as f64 / piece.size.max(1) as f64)
    }

    /// The number of peers that have `piece` or fetch it.
    #[must_use]
    pub fn copies(&self, piece: u32) -> u32 {
        self.all.get(piece as usize).map_or(0, |piece| piece.copies)
    }

    fn level(&self, copies: u32) -> usize {
        if self.order == Order::Rarest { copies as usize } else { copies.min(1) as usize }
    }

    /// Changes the state of a piece.
    fn set_state(&mut self, piece_index: u32, state: PieceState) {
        let Some(piece) = self.all.get(piece_index as usize) else { return };
        let (level, from, priority) = (self.level(piece.copies), piece.state, piece.priority);
        let pieces = self.all.len();
        let group = &mut self.groups[priority as usize];
        match from {
            PieceState::Inactive => {}
            PieceState::Missing => group.remove_missing(level, piece_index),
            PieceState::Partial => drop(group.partial.remove(piece_index)),
            PieceState::InFlight => drop(group.in_flight.remove(piece_index)),
        }
        match state {
            PieceState::Inactive => {}
            PieceState::Missing => group.add_missing(level, piece_index, pieces),
            PieceState::Partial => drop(group.partial.insert(piece_index)),
            PieceState::InFlight => drop(group.in_flight.insert(piece_index)),
        }
        self.all[piece_index as usize].state = state;
    }

    /// Counts one more copy of a piece, or one less.
    pub fn count_copy(&mut self, piece_index: u32, more: bool) {
        let Some(piece) = self.all.get(piece_index as usize) else { return };
        let copies = if more { piece.copies + 1 } else { piece.copies.saturating_sub(1) };
        let state = piece.state;
        if state == PieceState::Missing {
            self.set_state(piece_index, PieceState::Inactive);
        }
        self.all[piece_index as usize].copies = copies;
        if state == PieceState::Missing {
            self.set_state(piece_index, PieceState::Missing);
        }
    }

    /// Records that a fetch of a piece started.
    pub fn start_fetch(&mut self, piece_index: u32) {
        if self.all.get(piece_index as usize).is_some_and(|piece| piece.state != PieceState::Inactive) {
            self.set_state(piece_index, PieceState::InFlight);
        }
    }

    /// Records that `bytes` more bytes of a piece are on this machine.
    pub fn add_bytes(&mut self, piece_index: u32, bytes: u64) {
        let bytes = bytes.min(self.missing_bytes_of(piece_index));
        if let Some(piece) =
            self.all.get_mut(piece_index as usize).filter(|piece| piece.state != PieceState::Inactive)
        {
            piece.kept_bytes += bytes;
            self.missing_bytes -= bytes;
        }
    }

    /// Records that the last fetch of a piece ended.
    pub fn end_fetch(&mut self, piece_index: u32) {
        let Some(piece) = self.all.get(piece_index as usize) else { return };
        if piece.state == PieceState::InFlight {
            self.set_state(
                piece_index,
                if piece.kept_bytes > 0 { PieceState::Partial } else { PieceState::Missing },
            );
        }
    }

    /// Records that a piece is complete.
    pub fn complete(&mut self, piece_index: u32) {
        if self.all.get(piece_index as usize).is_some_and(|piece| piece.state != PieceState::Inactive) {
            self.missing_bytes -= self.missing_bytes_of(piece_index);
            self.set_state(piece_index, PieceState::Inactive);
        }
    }

    /// The next piece of a priority among `requestable`. The partial piece with the fewest missing bytes comes
    /// first, then the order decides.
    pub fn next_piece(&self, priority: Priority, requestable: &BitSet, rng: &mut Rng) -> Option<u32> {
        let group = &self.groups[priority as usize];
        let partial =
            group.partial.intersection(requestable).min_by_key(|piece| self.missing_bytes_of(*piece));
        if partial.is_some() {
            return partial;
        }
        if !group.missing.intersects(requestable) {
            return None;
        }
        group.filled.iter().filter_map(|level| group.levels.get(level as usize)).find_map(|level| match self
            .order
        {
            Order::Sequential => level.pieces.intersection(requestable).next(),
            _ => random_common(&level.pieces, requestable, rng),
        })
    }

    /// True if a piece in `requestable` has only one copy and is not in flight.
    #[must_use]
    pub fn has_unique(&self, requestable: &BitSet) -> bool {
        let level = |group: &PriorityGroup| {
            group.levels.get(1).is_some_and(|level| level.pieces.intersects(requestable))
        };
        self.order == Order::Rarest && self.groups.iter().any(level)
    }

    /// The pieces in flight of a priority. `None`: a piece that some peer has is not in flight.
    #[must_use]
    pub fn all_in_flight(&self, priority: Priority) -> Option<&BitSet> {
        let group = &self.groups[priority as usize];
        let none_left = group.missing.is_empty() && group.partial.iter().all(|piece| self.copies(piece) == 0);
        none_left.then_some(&group.in_flight)
    }
}

/// A random piece of both sets.
fn random_common(pieces: &BitSet, requestable: &BitSet, rng: &mut Rng) -> Option<u32> {
    match pieces.intersection_len(requestable) {
        0 => None,
        count => pieces.nth_common(requestable, rng.below(count)),
    }
}

impl PriorityGroup {
    fn add_missing(&mut self, level: usize, piece: u32, pieces: usize) {
        while self.levels.len() <= level {
            self.levels.push(RarityLevel { pieces: BitSet::new(pieces), count: 0 });
        }
        let level_pieces = &mut self.levels[level];
        level_pieces.count += u32::from(level_pieces.pieces.insert(piece));
        if level > 0 {
            self.filled.grow(level + 1);
            self.filled.insert(level as u32);
            self.missing.insert(piece);
        }
    }

    fn remove_missing(&mut self, level: usize, piece: u32) {
        let Some(level_pieces) = self.levels.get_mut(level) else { return };
        level_pieces.count -= u32::from(level_pieces.pieces.remove(piece));
        if level_pieces.count == 0 {
            self.filled.remove(level as u32);
        }
        self.missing.remove(piece);
    }
}
