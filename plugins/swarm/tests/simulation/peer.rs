//! One peer: its picker, its pieces, and its known peers.

use tightwad_plugin_sdk::piece_picker::{Event, Slot, Task};
use tightwad_swarm::Picker;

use super::scenario::Scenario;

/// A peer. Its index in the world is its peer id.
pub struct SimPeer {
    /// `None`: the first seeder, and complete peers.
    pub picker: Option<Picker>,
    pub have: Vec<bool>,
    pub piece_count: usize,
    /// Bytes of each piece on this peer.
    pub kept_bytes: Vec<f64>,
    pub known_peers: Vec<u32>,
    /// Events for the next call of the picker.
    pub pending_events: Vec<Event>,
    pub wake_is_scheduled: bool,
    /// Pieces that the other peers do not know yet.
    pub unannounced: Vec<u32>,
    pub online: bool,
    pub joined_at: f64,
    pub finished_at: Option<f64>,
}

impl SimPeer {
    pub fn seeder(scenario: &Scenario) -> Self {
        Self {
            have: vec![true; scenario.pieces],
            piece_count: scenario.pieces,
            picker: None,
            kept_bytes: Vec::new(),
            ..Self::new(scenario, 0, 0.0)
        }
    }

    pub fn new(scenario: &Scenario, number: usize, joined_at: f64) -> Self {
        let task = Task {
            piece_sizes: vec![scenario.piece_size; scenario.pieces],
            wanted: (0..scenario.pieces as u32).collect(),
            urgent: 0,
            seed: scenario.seed.wrapping_mul(1_000_003).wrapping_add(number as u64),
            settings: scenario.settings.clone().into(),
        };
        Self {
            picker: Some(Picker::new(&task)),
            have: vec![false; scenario.pieces],
            piece_count: 0,
            kept_bytes: vec![0.0; scenario.pieces],
            known_peers: Vec::new(),
            pending_events: Vec::new(),
            wake_is_scheduled: false,
            unannounced: Vec::new(),
            online: true,
            joined_at,
            finished_at: None,
        }
    }

    pub fn pieces(&self) -> Vec<u32> {
        (0..).zip(&self.have).filter(|(_, has)| **has).map(|(piece, _)| piece).collect()
    }

    /// The slots of its known peers.
    pub fn slots(&self, max_fetches: u32, in_flight: impl Fn(u32) -> u32) -> Vec<Slot> {
        let slot = |peer: &u32| {
            let free = max_fetches.saturating_sub(in_flight(*peer));
            (free > 0).then_some(Slot { peer: *peer, free })
        };
        self.known_peers.iter().filter_map(slot).collect()
    }
}
