//! Processes the events of a simulation in order.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

use tightwad_plugin_sdk::piece_picker::{Event, Fault, Fetch, FetchResult, PieceSet};
use tightwad_swarm::rng::Rng;

use super::SECOND;
use super::network::{Completion, Flow, Network};
use super::peer::SimPeer;
use super::scenario::{Outcome, Scenario};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum SimEvent {
    Completion(Completion),
    /// A peer's picker runs because of events.
    Wake(u32),
    /// A peer's picker runs in any case, once per second.
    Tick(u32),
    /// Other peers learn of a peer's new pieces.
    Announce(u32),
    Refuse(u32, u32, u32),
    Join,
    Leave(u32),
}

pub struct World<'a> {
    scenario: &'a Scenario,
    now: u64,
    calendar: BinaryHeap<Reverse<(u64, u64, SimEvent)>>,
    event_count: u64,
    peers: Vec<SimPeer>,
    network: Network,
    rng: Rng,
    outcome: Outcome,
}

/// The first seeder.
const SEEDER: u32 = 0;

impl<'a> World<'a> {
    pub fn new(scenario: &'a Scenario) -> Self {
        let mut world = Self {
            scenario,
            now: 0,
            calendar: BinaryHeap::new(),
            event_count: 0,
            peers: vec![SimPeer::seeder(scenario)],
            network: Network::default(),
            rng: Rng::new(scenario.seed),
            outcome: Outcome::default(),
        };
        world.network.join((scenario.seeder, scenario.seeder));
        for _ in 0..scenario.peers.first {
            world.join();
        }
        if scenario.churn.is_some_and(|churn| churn.arrivals_per_second > 0.0) {
            world.schedule_join();
        }
        world
    }

    pub fn run(mut self) -> Outcome {
        while let Some(Reverse((at, _, sim_event))) = self.calendar.pop() {
            if at as f64 > self.scenario.duration * SECOND {
                break;
            }
            self.now = at;
            self.handle(sim_event);
            for (at, completion) in std::mem::take(&mut self.network.scheduled) {
                self.schedule_at(at, SimEvent::Completion(completion));
            }
            // Peers that join later do not count.
            let more_join = self.scenario.churn.is_some_and(|churn| churn.arrivals_per_second > 0.0);
            if !more_join && self.peers.iter().all(|peer| !peer.online || peer.picker.is_none()) {
                break;
            }
        }
        self.outcome.end = self.now as f64 / SECOND;
        self.outcome.seeder = self.network.sent[SEEDER as usize];
        self.outcome.sent = self.network.sent.iter().sum();
        self.outcome.peers =
            self.peers.iter().skip(1).map(|peer| (peer.joined_at, peer.finished_at)).collect();
        self.outcome
    }

    fn schedule_at(&mut self, at: u64, sim_event: SimEvent) {
        self.event_count += 1;
        self.calendar.push(Reverse((at, self.event_count, sim_event)));
    }

    fn schedule_after(&mut self, seconds: f64, sim_event: SimEvent) {
        self.schedule_at(self.now + (seconds * SECOND) as u64, sim_event);
    }

    /// A random interval of events with this mean, in seconds.
    fn random_interval(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.rng.next_f64()).max(1e-12).ln()
    }

    fn handle(&mut self, sim_event: SimEvent) {
        match sim_event {
            SimEvent::Completion(completion) => {
                if let Some(flows) = self.network.complete(self.now, completion) {
                    self.piece_completed(&flows);
                }
            }
            SimEvent::Wake(peer) => {
                self.peers[peer as usize].wake_is_scheduled = false;
                self.run_picker(peer);
            }
            SimEvent::Tick(peer) => {
                if self.run_picker(peer) {
                    self.schedule_after(1.0, SimEvent::Tick(peer));
                }
            }
            SimEvent::Announce(peer) => self.announce(peer),
            SimEvent::Refuse(from, to, piece) => {
                self.outcome.refused += 1;
                let ended =
                    FetchResult { peer: from, piece, bytes: 0, elapsed: 0, fault: Some(Fault::Refused) };
                self.queue_event(to, Event::FetchEnded(ended));
            }
            SimEvent::Join => {
                self.join();
                self.schedule_join();
            }
            SimEvent::Leave(peer) => self.leave(peer),
        }
    }

    fn schedule_join(&mut self) {
        let Some(churn) = self.scenario.churn else { return };
        let seconds = self.random_interval(1.0 / churn.arrivals_per_second);
        self.schedule_after(seconds, SimEvent::Join);
    }

    fn join(&mut self) {
        let peer_id = self.peers.len();
        let mut others: Vec<u32> =
            (0..peer_id as u32).filter(|other| self.peers[*other as usize].online).collect();
        while others.len() > self.scenario.peers.known_peers {
            others.swap_remove(self.rng.below(others.len() as u32) as usize);
        }
        self.peers.push(SimPeer::new(self.scenario, peer_id, self.now as f64 / SECOND));
        self.network.join((self.scenario.peers.rates)(peer_id - 1));
        for other in others {
            self.connect(peer_id as u32, other);
        }
        self.schedule_after(1.0, SimEvent::Tick(peer_id as u32));
        if let Some(churn) = self.scenario.churn {
            let mut stay = self.random_interval(churn.mean_stay);
            if self.now == 0 {
                stay += churn.quiet_seconds;
            }
            self.schedule_after(stay, SimEvent::Leave(peer_id as u32));
        }
    }

    fn connect(&mut self, one: u32, two: u32) {
        for (peer, other) in [(one, two), (two, one)] {
            self.peers[peer as usize].known_peers.push(other);
            let pieces = self.peers[other as usize].pieces();
            self.queue_event(peer, Event::Joined(other));
            self.queue_event(peer, Event::Have(PieceSet { peer: other, pieces }));
        }
    }

    fn leave(&mut self, peer_id: u32) {
        if !std::mem::take(&mut self.peers[peer_id as usize].online) {
            return;
        }
        for flow in self.network.leave(self.now, peer_id) {
            if flow.from == peer_id {
                self.peers[flow.to as usize].kept_bytes[flow.piece as usize] += flow.bytes;
                self.fetch_ended(&flow, Some(Fault::Lost));
            }
        }
        self.peers[peer_id as usize].picker = None;
        for other in std::mem::take(&mut self.peers[peer_id as usize].known_peers) {
            self.peers[other as usize].known_peers.retain(|known| *known != peer_id);
            self.queue_event(other, Event::Left(peer_id));
        }
    }

    /// Queues an event for a peer's picker. Events at about the same time are passed in one call.
    fn queue_event(&mut self, peer_id: u32, event: Event) {
        let peer = &mut self.peers[peer_id as usize];
        if peer.picker.is_none() {
            return;
        }
        peer.pending_events.push(event);
        if !std::mem::replace(&mut peer.wake_is_scheduled, true) {
            self.schedule_after(0.25 * self.scenario.announce_delay, SimEvent::Wake(peer_id));
        }
    }

    fn fetch_ended(&mut self, flow: &Flow, fault: Option<Fault>) {
        let (bytes, elapsed) = (flow.bytes as u64, self.now - flow.started);
        let ended = FetchResult { peer: flow.from, piece: flow.piece, bytes, elapsed, fault };
        self.queue_event(flow.to, Event::FetchEnded(ended));
    }

    fn piece_completed(&mut self, flows: &[Flow]) {
        for (at, flow) in flows.iter().enumerate() {
            self.fetch_ended(flow, (at > 0).then_some(Fault::Cancelled));
        }
        let Some((to, piece)) = flows.first().map(|flow| (flow.to, flow.piece)) else { return };
        let peer = &mut self.peers[to as usize];
        assert!(!std::mem::replace(&mut peer.have[piece as usize], true), "a piece is complete once");
        peer.piece_count += 1;
        if peer.piece_count == self.scenario.pieces {
            peer.finished_at = Some(self.now as f64 / SECOND);
            peer.picker = None;
        }
        peer.unannounced.push(piece);
        if peer.unannounced.len() == 1 {
            self.schedule_after(self.scenario.announce_delay, SimEvent::Announce(to));
        }
        if self.network.sent[SEEDER as usize] >= self.scenario.seeder_copies * self.scenario.size() {
            self.leave(SEEDER);
        }
    }

    fn announce(&mut self, peer_id: u32) {
        let peer = &mut self.peers[peer_id as usize];
        let pieces = std::mem::take(&mut peer.unannounced);
        for other in peer.known_peers.clone() {
            self.queue_event(other, Event::Have(PieceSet { peer: peer_id, pieces: pieces.clone() }));
        }
    }

    /// Runs a peer's picker. Returns true if the peer still fetches.
    fn run_picker(&mut self, peer_id: u32) -> bool {
        let peer = &mut self.peers[peer_id as usize];
        let network = &self.network;
        let slots = peer.slots(self.scenario.max_fetches, |from| network.between(from, peer_id));
        let Some(picker) = &mut peer.picker else { return false };
        let events = std::mem::take(&mut peer.pending_events);
        let before = Instant::now();
        for event in &events {
            picker.observe(self.now, event);
        }
        let fetches = picker.pick(self.now, &slots);
        self.outcome.call_time += before.elapsed();
        self.outcome.calls += 1;
        self.outcome.events += events.len() as u64;
        self.outcome.fetches += fetches.len() as u64;
        for slot in &slots {
            let given = fetches.iter().filter(|fetch| fetch.peer == slot.peer).count();
            assert!(given <= slot.free as usize, "more fetches than free slots");
        }
        for fetch in fetches {
            self.start_fetch(peer_id, fetch);
        }
        true
    }

    fn start_fetch(&mut self, to: u32, fetch: Fetch) {
        let (from, piece) = (fetch.peer, fetch.piece);
        let (peer, other) = (&self.peers[to as usize], &self.peers[from as usize]);
        if peer.have[piece as usize] || !other.have[piece as usize] || !peer.known_peers.contains(&from) {
            return;
        }
        if self.network.uploads(from) >= self.scenario.max_uploads {
            self.schedule_after(self.scenario.announce_delay, SimEvent::Refuse(from, to, piece));
            return;
        }
        let missing = self.scenario.piece_size as f64 - peer.kept_bytes[piece as usize];
        self.network.start_fetch(self.now, from, to, piece, missing);
    }
}
