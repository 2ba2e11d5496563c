//! One peer: its policy, what it has, and whom it knows.

use tightwad_plugin_sdk::piece_picker::{Event, Slot, Task};
use tightwad_swarm::Policy;

use super::plan::Plan;

/// A peer; its number is its place in the world.
pub struct Node {
    /// The first seeder and peers that are done have none.
    pub policy: Option<Policy>,
    pub has: Vec<bool>,
    pub count: usize,
    /// Bytes of each piece that are had.
    pub kept: Vec<f64>,
    pub knows: Vec<u32>,
    /// What its policy was not told yet, and whether it will be soon.
    pub news: Vec<Event>,
    pub wakes: bool,
    /// Pieces that the others were not told of yet.
    pub untold: Vec<u32>,
    pub here: bool,
    pub came: f64,
    pub done: Option<f64>,
}

impl Node {
    pub fn seeder(plan: &Plan) -> Self {
        Self {
            has: vec![true; plan.pieces],
            count: plan.pieces,
            policy: None,
            kept: Vec::new(),
            ..Self::new(plan, 0, 0.0)
        }
    }

    pub fn new(plan: &Plan, number: usize, came: f64) -> Self {
        let task = Task {
            piece_sizes: vec![plan.piece; plan.pieces],
            wanted: (0..plan.pieces as u32).collect(),
            urgent: 0,
            seed: plan.seed.wrapping_mul(1_000_003).wrapping_add(number as u64),
            settings: plan.settings.clone().into(),
        };
        Self {
            policy: Some(Policy::new(&task)),
            has: vec![false; plan.pieces],
            count: 0,
            kept: vec![0.0; plan.pieces],
            knows: Vec::new(),
            news: Vec::new(),
            wakes: false,
            untold: Vec::new(),
            here: true,
            came,
            done: None,
        }
    }

    pub fn pieces(&self) -> Vec<u32> {
        (0..).zip(&self.has).filter(|(_, has)| **has).map(|(piece, _)| piece).collect()
    }

    /// What it may still fetch from whom.
    pub fn slots(&self, most: u32, under_way: impl Fn(u32) -> u32) -> Vec<Slot> {
        let slot = |peer: &u32| {
            let free = most.saturating_sub(under_way(*peer));
            (free > 0).then_some(Slot { peer: *peer, free })
        };
        self.knows.iter().filter_map(slot).collect()
    }
}
