//! Everything goes wrong, at random: what is picked is always sensible, and a pull ends all the same.
// Tests fail by panicking.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::collections::BTreeSet;

use support::{Failure, PIECE, Pull, SECOND, cancelled, lost, refused, stalled};
use tightwad_plugin_sdk::Settings;
use tightwad_swarm::chance::Chance;

const PIECES: u32 = 60;
const PEERS: u32 = 7;

/// What the host knows.
struct Host {
    pull: Pull,
    chance: Chance,
    has: Vec<BTreeSet<u32>>,
    had: BTreeSet<u32>,
    flying: BTreeSet<(u32, u32)>,
}

impl Host {
    fn new(seed: u64) -> Self {
        let orders = ["rarest", "random", "sequential"];
        let order = orders[seed as usize % 3];
        let settings = Settings::default().with("order", order).with("end_game", (seed % 4) as u32);
        let pull = Pull::seeded(PIECES, (seed % 5) as u32, &settings, seed);
        let has = vec![BTreeSet::new(); PEERS as usize];
        Self { pull, chance: Chance::new(seed), has, had: BTreeSet::new(), flying: BTreeSet::new() }
    }

    fn pick(&mut self) {
        let free = |peer| 3 - self.flying.iter().filter(|(_, from)| *from == peer).count() as u32;
        let slots: Vec<(u32, u32)> =
            (0..PEERS).map(|peer| (peer, free(peer))).filter(|slot| slot.1 > 0).collect();
        let picked = self.pull.pick(&slots);
        for (peer, free) in slots {
            assert!(picked.iter().filter(|(from, _)| *from == peer).count() <= free as usize, "{picked:?}");
        }
        for (peer, piece) in picked {
            assert!(!self.had.contains(&piece), "{piece} is had");
            assert!(self.has[peer as usize].contains(&piece), "{peer} does not have {piece}");
            assert!(self.flying.insert((piece, peer)), "{piece} twice from {peer}");
        }
    }

    fn failure(&mut self) -> Option<Failure> {
        let bytes = u64::from(self.chance.below(PIECE as u32 / 4));
        match self.chance.below(10) {
            0 => Some(refused()),
            1 => Some(stalled(bytes)),
            2 => Some(lost(bytes)),
            3 => Some(cancelled(bytes)),
            _ => None,
        }
    }

    /// One of the fetches ends somehow.
    fn end(&mut self) {
        let at = self.chance.below(self.flying.len() as u32) as usize;
        let Some((piece, peer)) = self.flying.iter().nth(at).copied() else { return };
        self.flying.remove(&(piece, peer));
        if let Some(failure) = self.failure() {
            self.pull.failed(peer, piece, failure);
            return;
        }
        self.had.insert(piece);
        let time = SECOND / 10 + u64::from(self.chance.below(1 << 30));
        self.pull.came(peer, piece, time);
        let others: Vec<(u32, u32)> = self.flying.range((piece, 0)..=(piece, u32::MAX)).copied().collect();
        for (_, other) in others {
            self.flying.remove(&(piece, other));
            self.pull.failed(other, piece, cancelled(10));
        }
    }

    fn step(&mut self) {
        self.pull.now += u64::from(self.chance.below(1 << 29));
        let (peer, piece) = (self.chance.below(PEERS), self.chance.below(PIECES));
        if self.has[peer as usize].insert(piece) {
            self.pull.has(peer, &[piece]);
        }
        self.end();
        self.pick();
    }
}

#[test]
fn a_pull_ends_whatever_goes_wrong() {
    for seed in 0..60 {
        let mut host = Host::new(seed);
        let mut steps = 0;
        while host.had.len() < PIECES as usize {
            host.step();
            steps += 1;
            assert!(steps < 20_000, "seed {seed}: {} of {PIECES} after {steps} steps", host.had.len());
        }
        assert!(host.pull.pick(&[(0, 9), (1, 9)]).is_empty());
    }
}
