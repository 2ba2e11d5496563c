//! One pull from peers that reply at once: the cost of the picker itself.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use tightwad_plugin_sdk::piece_picker::{Event, Fetch, FetchResult, PieceSet, Slot, Task};
use tightwad_swarm::Picker;
use tightwad_swarm::rng::Rng;

/// The cost of a pull.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cost {
    pub calls: u32,
    pub fetches: u32,
    pub call_time: Duration,
}

/// Pulls `pieces` from `peers`. Each peer has a `share` of the pieces; the first one has all. The fetches end in the
/// order of their start, one per call.
pub fn single_pull(pieces: u32, peers: u32, share: f64) -> Cost {
    let task = Task {
        piece_sizes: vec![1 << 20; pieces as usize],
        wanted: (0..pieces).collect(),
        urgent: 0,
        seed: 1,
        settings: Vec::new(),
    };
    let mut events = arrivals(pieces, peers, share);
    let (mut cost, mut complete, mut now) = (Cost::default(), vec![false; pieces as usize], 0);
    let mut free = vec![2; peers as usize];
    let mut in_flight: VecDeque<Fetch> = VecDeque::new();
    let mut picker = Picker::new(&task);
    loop {
        let slots: Vec<Slot> = (0..)
            .zip(&free)
            .filter(|(_, free)| **free > 0)
            .map(|(peer, free)| Slot { peer, free: *free })
            .collect();
        let before = Instant::now();
        events.drain(..).for_each(|event| picker.observe(now, &event));
        let fetches = picker.pick(now, &slots);
        cost.call_time += before.elapsed();
        cost.calls += 1;
        cost.fetches += fetches.len() as u32;
        fetches.iter().for_each(|fetch| free[fetch.peer as usize] -= 1);
        in_flight.extend(fetches);
        let Some(Fetch { peer, piece }) = in_flight.pop_front() else { break };
        now += 1_000_000;
        free[peer as usize] += 1;
        complete[piece as usize] = true;
        let ended = FetchResult { peer, piece, bytes: 1 << 20, elapsed: 10_000_000, fault: None };
        events.push(Event::FetchEnded(ended));
        // The other fetches of the piece end with it.
        for other in in_flight.iter().filter(|other| other.piece == piece) {
            free[other.peer as usize] += 1;
        }
        in_flight.retain(|other| other.piece != piece);
    }
    assert!(complete.iter().all(|complete| *complete), "a piece was forgotten");
    cost
}

fn arrivals(pieces: u32, peers: u32, share: f64) -> Vec<Event> {
    let mut rng = Rng::new(2);
    let mut events = Vec::new();
    for peer in 0..peers {
        let pieces = (0..pieces).filter(|_| peer == 0 || rng.next_f64() < share).collect();
        events.extend([Event::Joined(peer), Event::Have(PieceSet { peer, pieces })]);
    }
    events
}
