//! The picker: events go in, fetches come out.
//!
//! Invariant: a piece is in flight exactly while `in_flight` has a fetch of it. Each peer counts its own fetches.

use std::collections::BTreeMap;

use tightwad_plugin_sdk::piece_picker::{Event, Fault, Fetch, FetchResult, Slot, Task};

use crate::endgame::Endgame;
use crate::in_flight::{InFlight, OngoingFetch};
use crate::peer::Peer;
use crate::peer_order::{self, is_slow};
use crate::pieces::{Pieces, Priority};
use crate::rate;
use crate::rng::Rng;
use crate::settings::Settings;

/// The state of one pull.
#[derive(Debug, Clone)]
pub struct Picker {
    settings: Settings,
    pieces: Pieces,
    peers: BTreeMap<u32, Peer>,
    in_flight: InFlight,
    rng: Rng,
    /// The rate of a typical peer.
    typical_rate: Option<f64>,
    /// True if a rate changed since `typical_rate` was computed.
    typical_rate_is_stale: bool,
}

/// The state of one call of `pick`.
#[derive(Default)]
struct Round {
    now: u64,
    fetches: Vec<Fetch>,
    endgames: [Option<Endgame>; 2],
}

impl Picker {
    /// Begins a pull.
    #[must_use]
    pub fn new(task: &Task) -> Self {
        let settings = Settings::from_script(&task.settings.clone().into());
        Self {
            settings,
            pieces: Pieces::new(task, settings.order),
            peers: BTreeMap::new(),
            in_flight: InFlight::default(),
            rng: Rng::new(task.seed),
            typical_rate: None,
            typical_rate_is_stale: false,
        }
    }

    /// Records an event that happened at `now` or before.
    pub fn observe(&mut self, now: u64, event: &Event) {
        match event {
            Event::Joined(peer) => drop(self.peer(*peer)),
            Event::Left(peer) => {
                self.drop_pieces(*peer);
                self.peers.remove(peer);
            }
            Event::Have(set) => self.record_have(set.peer, &set.pieces),
            Event::FetchEnded(result) => self.record_result(now, result),
            Event::InProgress(set) => self.record_in_progress(set.peer, &set.pieces),
            Event::Other(_) => {}
        }
    }

    fn peer(&mut self, peer_id: u32) -> &mut Peer {
        let pieces = self.pieces.len();
        self.peers.entry(peer_id).or_insert_with(|| Peer::new(pieces))
    }

    fn record_have(&mut self, peer_id: u32, more: &[u32]) {
        let bound = self.pieces.len();
        let peer = self.peers.entry(peer_id).or_insert_with(|| Peer::new(bound));
        if peer.banned {
            return;
        }
        for piece in more.iter().filter(|piece| (**piece as usize) < bound) {
            if peer.have.insert(*piece) {
                peer.requestable.insert(*piece);
                // A piece in progress was counted already.
                if !peer.in_progress.remove(*piece) {
                    self.pieces.count_copy(*piece, true);
                }
            }
        }
    }

    /// A piece that a peer fetches itself counts as a copy. Otherwise pulls that begin together would all fetch the
    /// same rare pieces from their only owner, and all would wait for its uplink.
    fn record_in_progress(&mut self, peer_id: u32, more: &[u32]) {
        let bound = self.pieces.len();
        let peer = self.peers.entry(peer_id).or_insert_with(|| Peer::new(bound));
        for piece in more.iter().filter(|piece| (**piece as usize) < bound) {
            if !peer.banned && !peer.have.contains(*piece) && peer.in_progress.insert(*piece) {
                self.pieces.count_copy(*piece, true);
            }
        }
    }

    /// Removes the pieces and fetches of a peer.
    fn drop_pieces(&mut self, peer_id: u32) {
        let Some(peer) = self.peers.get_mut(&peer_id) else { return };
        for piece in peer.have.iter().chain(peer.in_progress.iter()) {
            self.pieces.count_copy(piece, false);
        }
        peer.have.clear();
        peer.in_progress.clear();
        peer.requestable.clear();
        self.typical_rate_is_stale = true;
        let lost: Vec<u32> = self.in_flight.from(peer_id).collect();
        for piece in lost {
            self.end_fetch(0, peer_id, piece);
            self.end_if_unfetched(piece);
        }
    }

    /// Records the end of a fetch. Returns its concurrency.
    fn end_fetch(&mut self, now: u64, peer_id: u32, piece: u32) -> Option<f64> {
        let fetch = self.in_flight.end(piece, peer_id)?;
        let peer = self.peers.get_mut(&peer_id)?;
        Some(peer.end_fetch(now, fetch.started, fetch.peer_load))
    }

    /// Puts a piece back if no fetch of it is left.
    fn end_if_unfetched(&mut self, piece: u32) {
        if self.in_flight.of(piece).next().is_none() {
            self.pieces.end_fetch(piece);
        }
    }

    fn record_result(&mut self, now: u64, result: &FetchResult) {
        let (peer_id, piece) = (result.peer, result.piece);
        let concurrency = self.end_fetch(now, peer_id, piece).unwrap_or(1.0);
        self.learn(now, result, concurrency);
        if result.fault.is_some() {
            self.pieces.add_bytes(piece, result.bytes);
        } else {
            self.pieces.complete(piece);
            // The host cancels the other fetches. Their results then change nothing here.
            let others: Vec<u32> = self.in_flight.of(piece).map(|(peer, _)| peer).collect();
            for other in others {
                self.end_fetch(now, other, piece);
            }
        }
        self.end_if_unfetched(piece);
        if result.fault == Some(Fault::Corrupt) {
            self.peer(peer_id).banned = true;
            self.drop_pieces(peer_id);
        }
    }

    /// Updates the peer by the result of a fetch.
    fn learn(&mut self, now: u64, result: &FetchResult, concurrency: f64) {
        let share = self.pieces.fraction(result.piece, result.bytes);
        let Some(peer) = self.peers.get_mut(&result.peer) else { return };
        let share = match &result.fault {
            None => 1.0,
            Some(Fault::Stalled) => 1.0,
            Some(_) if result.bytes > 0 => share,
            Some(_) => 0.0,
        };
        if share > 0.0 {
            peer.rate.learn(result.bytes, result.elapsed, concurrency, share);
            self.typical_rate_is_stale = true;
        }
        match &result.fault {
            None => peer.record_success(),
            Some(Fault::Refused | Fault::Stalled) => {
                peer.record_failure(now, &mut self.rng);
                // The peer is asked for other pieces first: it may never have had this one.
                peer.requestable.remove(result.piece);
            }
            Some(Fault::Lost | Fault::Other(_)) => peer.record_failure(now, &mut self.rng),
            Some(Fault::Corrupt | Fault::Cancelled) => {}
        }
    }

    /// Returns the fetches to start, at most `free` per slot.
    pub fn pick(&mut self, now: u64, slots: &[Slot]) -> Vec<Fetch> {
        if std::mem::take(&mut self.typical_rate_is_stale) {
            let rates = self.peers.values().filter(|peer| !peer.banned);
            self.typical_rate =
                rate::typical(rates.filter_map(|peer| peer.rate.bytes_per_second()).collect());
        }
        let turns = peer_order::order(now, slots, &self.peers, &self.pieces, self.typical_rate);
        let (slow, mut others): (Vec<_>, Vec<_>) = turns.into_iter().partition(|turn| turn.is_slow);
        let mut round = Round { now, ..Round::default() };
        while !others.is_empty() {
            others.retain_mut(|turn| {
                turn.free -= 1;
                self.start_fetch(&mut round, turn.peer, false) && turn.free > 0
            });
        }
        for turn in slow {
            self.start_fetch(&mut round, turn.peer, true);
        }
        round.fetches
    }

    /// Starts one fetch from a peer. Returns false if there is none.
    fn start_fetch(&mut self, round: &mut Round, peer_id: u32, slow: bool) -> bool {
        let piece = self.choose_piece(round, peer_id, slow);
        let Some(peer) = self.peers.get_mut(&peer_id) else { return false };
        let Some(piece) = piece else {
            peer.reset_requestable();
            return false;
        };
        let peer_load = peer.start_fetch(round.now);
        self.pieces.start_fetch(piece);
        self.in_flight.start(piece, peer_id, OngoingFetch { started: round.now, peer_load });
        round.fetches.push(Fetch { peer: peer_id, piece });
        true
    }

    fn choose_piece(&mut self, round: &mut Round, peer_id: u32, slow: bool) -> Option<u32> {
        let now = round.now;
        for priority in Priority::ALL {
            let requestable = &self.peers.get(&peer_id)?.requestable;
            let first = self.pieces.next_piece(priority, requestable, &mut self.rng);
            if let Some(piece) =
                first.filter(|piece| !slow || self.slow_peer_may_fetch(now, peer_id, priority, *piece))
            {
                return Some(piece);
            }
            // A piece that only this peer has is more useful than a second fetch of an urgent piece.
            let busy = priority == Priority::Urgent && self.pieces.has_unique(requestable);
            if busy || self.pieces.all_in_flight(priority).is_none() {
                continue;
            }
            // When all pieces are in flight, only second fetches of this priority start in this call.
            let terms = (now, self.settings.max_fetches_per_piece, self.typical_rate);
            let endgame = round.endgames[priority as usize].get_or_insert_with(|| {
                Endgame::new(terms, priority, &self.pieces, &self.peers, &self.in_flight)
            });
            let second = endgame.second_fetch(peer_id, self.peers.get(&peer_id)?, &self.in_flight);
            if second.is_some() {
                return second;
            }
        }
        None
    }

    /// True if a slow peer may fetch the piece: no faster peer has it, or it is not urgent and the slow peer
    /// completes it before the faster peers complete everything else.
    fn slow_peer_may_fetch(&self, now: u64, peer_id: u32, priority: Priority, piece: u32) -> bool {
        let faster =
            || self.peers.values().filter(|peer| peer.is_ready(now) && !is_slow(peer, self.typical_rate));
        if !faster().any(|peer| peer.requestable.contains(piece)) {
            return true;
        }
        let rate = self.peers.get(&peer_id).and_then(|peer| peer.rate.bytes_per_second()).unwrap_or(0.0);
        let rates: f64 = faster().filter_map(|peer| peer.rate.bytes_per_second()).sum();
        let (this, all) = (self.pieces.missing_bytes_of(piece) as f64, self.pieces.missing_bytes() as f64);
        priority == Priority::Later && this * rates <= all * rate
    }
}
