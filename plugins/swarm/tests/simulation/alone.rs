//! One pull from peers that answer at once: what the policy itself costs.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use tightwad_plugin_sdk::piece_picker::{Event, Fetch, FetchResult, PieceSet, Slot, Task};
use tightwad_swarm::Policy;
use tightwad_swarm::chance::Chance;

/// What a pull cost.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cost {
    pub calls: u32,
    pub fetches: u32,
    pub thought: Duration,
}

/// Pulls `pieces` from `peers` that have a `share` of them each; the first one has all. Fetches end in the order
/// in which they began, one a call.
pub fn alone(pieces: u32, peers: u32, share: f64) -> Cost {
    let task = Task {
        piece_sizes: vec![1 << 20; pieces as usize],
        wanted: (0..pieces).collect(),
        urgent: 0,
        seed: 1,
        settings: Vec::new(),
    };
    let mut events = arrivals(pieces, peers, share);
    let (mut cost, mut had, mut now) = (Cost::default(), vec![false; pieces as usize], 0);
    let mut free = vec![2; peers as usize];
    let mut flying: VecDeque<Fetch> = VecDeque::new();
    let mut policy = Policy::new(&task);
    loop {
        let slots: Vec<Slot> = (0..)
            .zip(&free)
            .filter(|(_, free)| **free > 0)
            .map(|(peer, free)| Slot { peer, free: *free })
            .collect();
        let before = Instant::now();
        events.drain(..).for_each(|event| policy.observe(now, &event));
        let fetches = policy.pick(now, &slots);
        cost.thought += before.elapsed();
        cost.calls += 1;
        cost.fetches += fetches.len() as u32;
        fetches.iter().for_each(|fetch| free[fetch.peer as usize] -= 1);
        flying.extend(fetches);
        let Some(Fetch { peer, piece }) = flying.pop_front() else { break };
        now += 1_000_000;
        free[peer as usize] += 1;
        had[piece as usize] = true;
        let ended = FetchResult { peer, piece, bytes: 1 << 20, elapsed: 10_000_000, fault: None };
        events.push(Event::FetchEnded(ended));
        // The other fetches of the piece end with it.
        for other in flying.iter().filter(|other| other.piece == piece) {
            free[other.peer as usize] += 1;
        }
        flying.retain(|other| other.piece != piece);
    }
    assert!(had.iter().all(|had| *had), "a piece was forgotten");
    cost
}

fn arrivals(pieces: u32, peers: u32, share: f64) -> Vec<Event> {
    let mut chance = Chance::new(2);
    let mut events = Vec::new();
    for peer in 0..peers {
        let pieces = (0..pieces).filter(|_| peer == 0 || chance.share() < share).collect();
        events.extend([Event::Joined(peer), Event::Have(PieceSet { peer, pieces })]);
    }
    events
}
