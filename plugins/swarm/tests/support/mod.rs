//! A pull whose events a test writes itself.
// Not every test needs all of it.
#![allow(dead_code)]

use tightwad_plugin_sdk::Settings;
use tightwad_plugin_sdk::piece_picker::{Event, Fault, FetchResult, PieceSet, Slot, Task};
use tightwad_swarm::Picker;

/// Nanoseconds per second.
pub const SECOND: u64 = 1_000_000_000;
/// Bytes per piece.
pub const PIECE: u64 = 1000;

/// The bytes that arrived, and the fault.
pub type Failure = (u64, Fault);

pub fn refused() -> Failure {
    (0, Fault::Refused)
}

pub fn stalled(bytes: u64) -> Failure {
    (bytes, Fault::Stalled)
}

pub fn lost(bytes: u64) -> Failure {
    (bytes, Fault::Lost)
}

pub fn corrupt() -> Failure {
    (0, Fault::Corrupt)
}

pub fn cancelled(bytes: u64) -> Failure {
    (bytes, Fault::Cancelled)
}

pub struct Pull {
    pub picker: Picker,
    pub now: u64,
}

impl Pull {
    /// Wants all of `pieces` pieces, the first `urgent` of them first.
    pub fn new(pieces: u32, urgent: u32, settings: &Settings) -> Self {
        Self::seeded(pieces, urgent, settings, 1)
    }

    pub fn seeded(pieces: u32, urgent: u32, settings: &Settings, seed: u64) -> Self {
        let task = Task {
            piece_sizes: vec![PIECE; pieces as usize],
            wanted: (0..pieces).collect(),
            urgent,
            seed,
            settings: settings.clone().into(),
        };
        Self { picker: Picker::new(&task), now: 0 }
    }

    pub fn observe(&mut self, event: Event) {
        self.picker.observe(self.now, &event);
    }

    pub fn have(&mut self, peer: u32, pieces: &[u32]) {
        self.observe(Event::Have(PieceSet { peer, pieces: pieces.to_vec() }));
    }

    pub fn left(&mut self, peer: u32) {
        self.observe(Event::Left(peer));
    }

    /// A piece is complete after `time` nanoseconds.
    pub fn completed(&mut self, peer: u32, piece: u32, time: u64) {
        self.observe(Event::FetchEnded(FetchResult {
            peer,
            piece,
            bytes: PIECE,
            elapsed: time,
            fault: None,
        }));
    }

    pub fn failed(&mut self, peer: u32, piece: u32, (bytes, fault): Failure) {
        self.observe(Event::FetchEnded(FetchResult {
            peer,
            piece,
            bytes,
            elapsed: SECOND,
            fault: Some(fault),
        }));
    }

    /// Picks for slots, given as peers and free numbers. Returns peers and pieces.
    pub fn pick(&mut self, slots: &[(u32, u32)]) -> Vec<(u32, u32)> {
        let slots: Vec<Slot> = slots.iter().map(|(peer, free)| Slot { peer: *peer, free: *free }).collect();
        self.picker.pick(self.now, &slots).iter().map(|fetch| (fetch.peer, fetch.piece)).collect()
    }
}

pub fn slot(peer: u32, free: u32) -> Slot {
    Slot { peer, free }
}

/// A pull in which the rate of every peer is known: each one sent a piece in its number of seconds.
pub fn measured(pieces: u32, settings: &Settings, seconds: &[u64]) -> Pull {
    let mut pull = Pull::new(pieces + seconds.len() as u32, 0, settings);
    for (peer, piece) in (0..seconds.len() as u32).zip(pieces..) {
        pull.have(peer, &[piece]);
    }
    let slots: Vec<(u32, u32)> = (0..seconds.len() as u32).map(|peer| (peer, 1)).collect();
    assert_eq!(pull.pick(&slots).len(), seconds.len());
    for (peer, (piece, seconds)) in (0..).zip((pieces..).zip(seconds)) {
        pull.completed(peer, piece, *seconds * SECOND);
    }
    pull
}
