//! What is missing, how rare it is, and what was begun.
//!
//! Invariant: a piece that is wanted and not had is in exactly one place of its part: in the level that its
//! copies say, among the begun ones, or flying. No other piece is anywhere.

use tightwad_plugin_sdk::piece_picker::Task;

use crate::chance::Chance;
use crate::set::Set;
use crate::settings::Order;

/// When a piece is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Before the others.
    Urgent,
    /// Some time.
    Later,
}

impl Need {
    /// Both, what goes first first.
    pub const ALL: [Self; 2] = [Self::Urgent, Self::Later];
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Not wanted, or had.
    Out,
    Open,
    Begun,
    Flying,
}

#[derive(Debug, Clone)]
struct Piece {
    size: u64,
    /// Bytes that are had already.
    kept: u64,
    /// Peers that have it.
    copies: u32,
    need: Need,
    place: Place,
}

#[derive(Debug, Clone, Default)]
struct Level {
    pieces: Set,
    count: u32,
}

/// The pieces of one need.
#[derive(Debug, Clone, Default)]
struct Part {
    /// Those of which nothing is had: nobody has the pieces of level 0, the others are told apart by the order.
    levels: Vec<Level>,
    /// Which levels above 0 have pieces, and all of their pieces.
    filled: Set,
    open: Set,
    /// Those of which something is had.
    begun: Set,
    /// Those that are being fetched.
    flying: Set,
}

/// All pieces of a manifest.
#[derive(Debug, Clone)]
pub struct Pieces {
    order: Order,
    all: Vec<Piece>,
    parts: [Part; 2],
    /// Bytes that are wanted and not had.
    missing: u64,
}

impl Pieces {
    /// What a task wants.
    #[must_use]
    pub fn new(task: &Task, order: Order) -> Self {
        let piece =
            |size: &u64| Piece { size: *size, kept: 0, copies: 0, need: Need::Later, place: Place::Out };
        let none = Set::new(task.piece_sizes.len());
        let part = Part { open: none.clone(), begun: none.clone(), flying: none, ..Part::default() };
        let mut pieces = Self {
            order,
            all: task.piece_sizes.iter().map(piece).collect(),
            parts: [part.clone(), part],
            missing: 0,
        };
        for (at, number) in (0..).zip(&task.wanted) {
            let Some(piece) = pieces.all.get_mut(*number as usize) else { continue };
            if piece.place == Place::Out {
                piece.need = if at < task.urgent { Need::Urgent } else { Need::Later };
                pieces.missing += piece.size;
                pieces.put(*number, Place::Open);
            }
        }
        pieces
    }

    /// How many there are, wanted or not.
    #[must_use]
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Bytes of all that is missing.
    #[must_use]
    pub fn missing(&self) -> u64 {
        self.missing
    }

    /// Bytes that are missing of `piece`.
    #[must_use]
    pub fn missing_of(&self, piece: u32) -> u64 {
        self.all.get(piece as usize).map_or(0, |piece| piece.size.saturating_sub(piece.kept))
    }

    /// What is had of `piece`, from 0 to 1, if so many bytes are.
    #[must_use]
    pub fn share(&self, piece: u32, bytes: u64) -> f64 {
        self.all.get(piece as usize).map_or(0.0, |piece| bytes as f64 / piece.size.max(1) as f64)
    }

    /// How many peers have `piece`.
    #[must_use]
    pub fn copies(&self, piece: u32) -> u32 {
        self.all.get(piece as usize).map_or(0, |piece| piece.copies)
    }

    /// Whether `piece` is being fetched.
    #[must_use]
    pub fn is_flying(&self, piece: u32) -> bool {
        self.all.get(piece as usize).is_some_and(|piece| piece.place == Place::Flying)
    }

    fn level(&self, copies: u32) -> usize {
        if self.order == Order::Rarest { copies as usize } else { copies.min(1) as usize }
    }

    /// Moves a piece to another place.
    fn put(&mut self, number: u32, place: Place) {
        let Some(piece) = self.all.get(number as usize) else { return };
        let (level, from, need) = (self.level(piece.copies), piece.place, piece.need);
        let pieces = self.all.len();
        let part = &mut self.parts[need as usize];
        match from {
            Place::Out => {}
            Place::Open => part.shut(level, number),
            Place::Begun => drop(part.begun.remove(number)),
            Place::Flying => drop(part.flying.remove(number)),
        }
        match place {
            Place::Out => {}
            Place::Open => part.open(level, number, pieces),
            Place::Begun => drop(part.begun.insert(number)),
            Place::Flying => drop(part.flying.insert(number)),
        }
        self.all[number as usize].place = place;
    }

    /// One peer more, or one less, has `piece`.
    pub fn count(&mut self, number: u32, more: bool) {
        let Some(piece) = self.all.get(number as usize) else { return };
        let copies = if more { piece.copies + 1 } else { piece.copies.saturating_sub(1) };
        let place = piece.place;
        if place == Place::Open {
            self.put(number, Place::Out);
        }
        self.all[number as usize].copies = copies;
        if place == Place::Open {
            self.put(number, Place::Open);
        }
    }

    /// `piece` is being fetched from now on.
    pub fn take(&mut self, number: u32) {
        if self.all.get(number as usize).is_some_and(|piece| piece.place != Place::Out) {
            self.put(number, Place::Flying);
        }
    }

    /// So many more bytes of `piece` are had.
    pub fn keep(&mut self, number: u32, bytes: u64) {
        let bytes = bytes.min(self.missing_of(number));
        if let Some(piece) = self.all.get_mut(number as usize).filter(|piece| piece.place != Place::Out) {
            piece.kept += bytes;
            self.missing -= bytes;
        }
    }

    /// `piece` is no longer being fetched.
    pub fn put_back(&mut self, number: u32) {
        let Some(piece) = self.all.get(number as usize) else { return };
        if piece.place == Place::Flying {
            self.put(number, if piece.kept > 0 { Place::Begun } else { Place::Open });
        }
    }

    /// `piece` is had.
    pub fn have(&mut self, number: u32) {
        if self.all.get(number as usize).is_some_and(|piece| piece.place != Place::Out) {
            self.missing -= self.missing_of(number);
            self.put(number, Place::Out);
        }
    }

    /// What goes first of that which is offered and not being fetched: what is nearest to its end of the begun
    /// ones, else what the order says.
    pub fn first(&self, need: Need, offers: &Set, chance: &mut Chance) -> Option<u32> {
        let part = &self.parts[need as usize];
        let begun = part.begun.shared(offers).min_by_key(|piece| self.missing_of(*piece));
        if begun.is_some() {
            return begun;
        }
        if !part.open.meets(offers) {
            return None;
        }
        part.filled.iter().filter_map(|level| part.levels.get(level as usize)).find_map(|level| {
            match self.order {
                Order::Sequential => level.pieces.shared(offers).next(),
                _ => pick(&level.pieces, offers, chance),
            }
        })
    }

    /// Whether some of what is offered nobody else has, and it is not being fetched.
    #[must_use]
    pub fn only_there(&self, offers: &Set) -> bool {
        let level = |part: &Part| part.levels.get(1).is_some_and(|level| level.pieces.meets(offers));
        self.order == Order::Rarest && self.parts.iter().any(level)
    }

    /// What is being fetched of a need, if all of it is that anybody has.
    #[must_use]
    pub fn all_flying(&self, need: Need) -> Option<&Set> {
        let part = &self.parts[need as usize];
        let none = part.open.is_empty() && part.begun.iter().all(|piece| self.copies(piece) == 0);
        none.then_some(&part.flying)
    }
}

/// Any of what is in both.
fn pick(pieces: &Set, offers: &Set, chance: &mut Chance) -> Option<u32> {
    match pieces.count_shared(offers) {
        0 => None,
        count => pieces.nth_shared(offers, chance.below(count)),
    }
}

impl Part {
    fn open(&mut self, level: usize, piece: u32, pieces: usize) {
        while self.levels.len() <= level {
            self.levels.push(Level { pieces: Set::new(pieces), count: 0 });
        }
        let at = &mut self.levels[level];
        at.count += u32::from(at.pieces.insert(piece));
        if level > 0 {
            self.filled.grow(level + 1);
            self.filled.insert(level as u32);
            self.open.insert(piece);
        }
    }

    fn shut(&mut self, level: usize, piece: u32) {
        let Some(at) = self.levels.get_mut(level) else { return };
        at.count -= u32::from(at.pieces.remove(piece));
        if at.count == 0 {
            self.filled.remove(level as u32);
        }
        self.open.remove(piece);
    }
}
