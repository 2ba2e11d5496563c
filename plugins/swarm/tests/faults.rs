//! Random failures: each pick is valid, and the pull ends all the same.
// Tests fail by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::collections::BTreeSet;

use support::{Failure, PIECE, Pull, SECOND, cancelled, lost, refused, stalled};
use tightwad_plugin_sdk::Settings;
use tightwad_swarm::rng::Rng;

const PIECES: u32 = 60;
const PEERS: u32 = 7;

/// The host's view of a pull.
struct Host {
    pull: Pull,
    rng: Rng,
    have: Vec<BTreeSet<u32>>,
    complete: BTreeSet<u32>,
    in_flight: BTreeSet<(u32, u32)>,
}

impl Host {
    fn new(seed: u64) -> Self {
        let orders = ["rarest", "random", "sequential"];
        let order = orders[seed as usize % 3];
        let settings =
            Settings::default().with("order", order).with("max_fetches_per_piece", (seed % 4) as u32);
        let pull = Pull::seeded(PIECES, (seed % 5) as u32, &settings, seed);
        let have = vec![BTreeSet::new(); PEERS as usize];
        Self { pull, rng: Rng::new(seed), have, complete: BTreeSet::new(), in_flight: BTreeSet::new() }
    }

    fn pick(&mut self) {
        let free = |peer| 3 - self.in_flight.iter().filter(|(_, from)| *from == peer).count() as u32;
        let slots: Vec<(u32, u32)> =
            (0..PEERS).map(|peer| (peer, free(peer))).filter(|slot| slot.1 > 0).collect();
        let picked = self.pull.pick(&slots);
        for (peer, free) in slots {
            assert!(picked.iter().filter(|(from, _)| *from == peer).count() <= free as usize, "{picked:?}");
        }
        for (peer, piece) in picked {
            assert!(!self.complete.contains(&piece), "{piece} is complete");
            assert!(self.have[peer as usize].contains(&piece), "{peer} does not have {piece}");
            assert!(self.in_flight.insert((piece, peer)), "{piece} twice from {peer}");
        }
    }

    fn failure(&mut self) -> Option<Failure> {
        let bytes = u64::from(self.rng.below(PIECE as u32 / 4));
        match self.rng.below(10) {
            0 => Some(refused()),
            1 => Some(stalled(bytes)),
            2 => Some(lost(bytes)),
            3 => Some(cancelled(bytes)),
            _ => None,
        }
    }

    /// Ends one of the fetches, by a complete piece or by a failure.
    fn end(&mut self) {
        let at = self.rng.below(self.in_flight.len() as u32) as usize;
        let Some((piece, peer)) = self.in_flight.iter().nth(at).copied() else { return };
        self.in_flight.remove(&(piece, peer));
        if let Some(failure) = self.failure() {
            self.pull.failed(peer, piece, failure);
            return;
        }
        self.complete.insert(piece);
        let time = SECOND / 10 + u64::from(self.rng.below(1 << 30));
        self.pull.completed(peer, piece, time);
        let others: Vec<(u32, u32)> = self.in_flight.range((piece, 0)..=(piece, u32::MAX)).copied().collect();
        for (_, other) in others {
            self.in_flight.remove(&(piece, other));
            self.pull.failed(other, piece, cancelled(10));
        }
    }

    fn step(&mut self) {
        self.pull.now += u64::from(self.rng.below(1 << 29));
        let (peer, piece) = (self.rng.below(PEERS), self.rng.below(PIECES));
        if self.have[peer as usize].insert(piece) {
            self.pull.have(peer, &[piece]);
        }
        self.end();
        self.pick();
    }
}

#[test]
fn pull_ends_whatever_fails() {
    for seed in 0..60 {
        let mut host = Host::new(seed);
        let mut steps = 0;
        while host.complete.len() < PIECES as usize {
            host.step();
            steps += 1;
            assert!(steps < 20_000, "seed {seed}: {} of {PIECES} after {steps} steps", host.complete.len());
        }
        assert!(host.pull.pick(&[(0, 9), (1, 9)]).is_empty());
    }
}
