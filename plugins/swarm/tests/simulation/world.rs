//! Lets things happen, in order.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

use tightwad_plugin_sdk::piece_picker::{Event, Fault, Fetch, FetchResult, PieceSet};
use tightwad_swarm::chance::Chance;

use super::SECOND;
use super::network::{Flow, Network, Whole};
use super::node::Node;
use super::plan::{Outcome, Plan};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Happening {
    Whole(Whole),
    /// A peer's policy is asked.
    Wake(u32),
    /// It is asked anyway, once a second.
    Tick(u32),
    /// Others hear of a peer's new pieces.
    Tell(u32),
    Refuse(u32, u32, u32),
    Come,
    Leave(u32),
}

pub struct World<'a> {
    plan: &'a Plan,
    now: u64,
    calendar: BinaryHeap<Reverse<(u64, u64, Happening)>>,
    happened: u64,
    nodes: Vec<Node>,
    network: Network,
    chance: Chance,
    outcome: Outcome,
}

/// The first seeder.
const SEEDER: u32 = 0;

impl<'a> World<'a> {
    pub fn new(plan: &'a Plan) -> Self {
        let mut world = Self {
            plan,
            now: 0,
            calendar: BinaryHeap::new(),
            happened: 0,
            nodes: vec![Node::seeder(plan)],
            network: Network::default(),
            chance: Chance::new(plan.seed),
            outcome: Outcome::default(),
        };
        world.network.join((plan.seeder, plan.seeder));
        for _ in 0..plan.peers.first {
            world.come();
        }
        if plan.churn.is_some_and(|churn| churn.come > 0.0) {
            world.next_comes();
        }
        world
    }

    pub fn run(mut self) -> Outcome {
        while let Some(Reverse((at, _, happening))) = self.calendar.pop() {
            if at as f64 > self.plan.until * SECOND {
                break;
            }
            self.now = at;
            self.happen(happening);
            for (at, whole) in std::mem::take(&mut self.network.expected) {
                self.at(at, Happening::Whole(whole));
            }
            // Whoever comes later is not waited for.
            let coming = self.plan.churn.is_some_and(|churn| churn.come > 0.0);
            if !coming && self.nodes.iter().all(|node| !node.here || node.policy.is_none()) {
                break;
            }
        }
        self.outcome.end = self.now as f64 / SECOND;
        self.outcome.seeder = self.network.sent[SEEDER as usize];
        self.outcome.sent = self.network.sent.iter().sum();
        self.outcome.peers = self.nodes.iter().skip(1).map(|node| (node.came, node.done)).collect();
        self.outcome
    }

    fn at(&mut self, at: u64, happening: Happening) {
        self.happened += 1;
        self.calendar.push(Reverse((at, self.happened, happening)));
    }

    fn after(&mut self, seconds: f64, happening: Happening) {
        self.at(self.now + (seconds * SECOND) as u64, happening);
    }

    /// Seconds between things that happen so often on average.
    fn seconds(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.chance.share()).max(1e-12).ln()
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Whole(whole) => {
                if let Some(flows) = self.network.whole(self.now, whole) {
                    self.whole(&flows);
                }
            }
            Happening::Wake(node) => {
                self.nodes[node as usize].wakes = false;
                self.ask(node);
            }
            Happening::Tick(node) => {
                if self.ask(node) {
                    self.after(1.0, Happening::Tick(node));
                }
            }
            Happening::Tell(node) => self.tell(node),
            Happening::Refuse(from, to, piece) => {
                self.outcome.refused += 1;
                let ended =
                    FetchResult { peer: from, piece, bytes: 0, elapsed: 0, fault: Some(Fault::Refused) };
                self.news(to, Event::FetchEnded(ended));
            }
            Happening::Come => {
                self.come();
                self.next_comes();
            }
            Happening::Leave(node) => self.leave(node),
        }
    }

    fn next_comes(&mut self) {
        let Some(churn) = self.plan.churn else { return };
        let seconds = self.seconds(1.0 / churn.come);
        self.after(seconds, Happening::Come);
    }

    fn come(&mut self) {
        let number = self.nodes.len();
        let mut others: Vec<u32> =
            (0..number as u32).filter(|other| self.nodes[*other as usize].here).collect();
        while others.len() > self.plan.peers.knows {
            others.swap_remove(self.chance.below(others.len() as u32) as usize);
        }
        self.nodes.push(Node::new(self.plan, number, self.now as f64 / SECOND));
        self.network.join((self.plan.peers.rates)(number - 1));
        for other in others {
            self.meet(number as u32, other);
        }
        self.after(1.0, Happening::Tick(number as u32));
        if let Some(churn) = self.plan.churn {
            let mut stays = self.seconds(churn.stays);
            if self.now == 0 {
                stays += churn.from;
            }
            self.after(stays, Happening::Leave(number as u32));
        }
    }

    fn meet(&mut self, one: u32, two: u32) {
        for (here, there) in [(one, two), (two, one)] {
            self.nodes[here as usize].knows.push(there);
            let pieces = self.nodes[there as usize].pieces();
            self.news(here, Event::Joined(there));
            self.news(here, Event::Have(PieceSet { peer: there, pieces }));
        }
    }

    fn leave(&mut self, number: u32) {
        if !std::mem::take(&mut self.nodes[number as usize].here) {
            return;
        }
        for flow in self.network.leave(self.now, number) {
            if flow.from == number {
                self.nodes[flow.to as usize].kept[flow.piece as usize] += flow.bytes;
                self.fetched(&flow, Some(Fault::Lost));
            }
        }
        self.nodes[number as usize].policy = None;
        for other in std::mem::take(&mut self.nodes[number as usize].knows) {
            self.nodes[other as usize].knows.retain(|known| *known != number);
            self.news(other, Event::Left(number));
        }
    }

    /// Tells a peer's policy soon: what happens at about the same time is one call.
    fn news(&mut self, number: u32, event: Event) {
        let node = &mut self.nodes[number as usize];
        if node.policy.is_none() {
            return;
        }
        node.news.push(event);
        if !std::mem::replace(&mut node.wakes, true) {
            self.after(0.25 * self.plan.delay, Happening::Wake(number));
        }
    }

    fn fetched(&mut self, flow: &Flow, fault: Option<Fault>) {
        let (bytes, elapsed) = (flow.bytes as u64, self.now - flow.began);
        let ended = FetchResult { peer: flow.from, piece: flow.piece, bytes, elapsed, fault };
        self.news(flow.to, Event::FetchEnded(ended));
    }

    fn whole(&mut self, flows: &[Flow]) {
        for (at, flow) in flows.iter().enumerate() {
            self.fetched(flow, (at > 0).then_some(Fault::Cancelled));
        }
        let Some((to, piece)) = flows.first().map(|flow| (flow.to, flow.piece)) else { return };
        let node = &mut self.nodes[to as usize];
        assert!(!std::mem::replace(&mut node.has[piece as usize], true), "a piece came twice");
        node.count += 1;
        if node.count == self.plan.pieces {
            node.done = Some(self.now as f64 / SECOND);
            node.policy = None;
        }
        node.untold.push(piece);
        if node.untold.len() == 1 {
            self.after(self.plan.delay, Happening::Tell(to));
        }
        if self.network.sent[SEEDER as usize] >= self.plan.seeder_sends * self.plan.size() {
            self.leave(SEEDER);
        }
    }

    fn tell(&mut self, number: u32) {
        let node = &mut self.nodes[number as usize];
        let pieces = std::mem::take(&mut node.untold);
        for other in node.knows.clone() {
            self.news(other, Event::Have(PieceSet { peer: number, pieces: pieces.clone() }));
        }
    }

    /// Asks a peer's policy; whether it still fetches.
    fn ask(&mut self, number: u32) -> bool {
        let node = &mut self.nodes[number as usize];
        let network = &self.network;
        let slots = node.slots(self.plan.fetches, |from| network.between(from, number));
        let Some(policy) = &mut node.policy else { return false };
        let events = std::mem::take(&mut node.news);
        let before = Instant::now();
        for event in &events {
            policy.observe(self.now, event);
        }
        let fetches = policy.pick(self.now, &slots);
        self.outcome.thought += before.elapsed();
        self.outcome.calls += 1;
        self.outcome.events += events.len() as u64;
        self.outcome.fetches += fetches.len() as u64;
        for slot in &slots {
            let given = fetches.iter().filter(|fetch| fetch.peer == slot.peer).count();
            assert!(given <= slot.free as usize, "more than is free");
        }
        for fetch in fetches {
            self.begin(number, fetch);
        }
        true
    }

    fn begin(&mut self, to: u32, fetch: Fetch) {
        let (from, piece) = (fetch.peer, fetch.piece);
        let (node, other) = (&self.nodes[to as usize], &self.nodes[from as usize]);
        if node.has[piece as usize] || !other.has[piece as usize] || !node.knows.contains(&from) {
            return;
        }
        if self.network.uploads(from) >= self.plan.uploads {
            self.after(self.plan.delay, Happening::Refuse(from, to, piece));
            return;
        }
        let missing = self.plan.piece as f64 - node.kept[piece as usize];
        self.network.begin(self.now, from, to, piece, missing);
    }
}
