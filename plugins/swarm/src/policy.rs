//! The policy: what happened goes in, fetches come out.
//!
//! Invariant: a piece is flying exactly while `flights` has a fetch of it, and each peer counts its own fetches.

use std::collections::BTreeMap;

use tightwad_plugin_sdk::piece_picker::{Event, Fault, Fetch, FetchResult, Slot, Task};

use crate::chance::Chance;
use crate::end_game::EndGame;
use crate::flights::{Flight, Flights};
use crate::peer::Peer;
use crate::pieces::{Need, Pieces};
use crate::rate;
use crate::settings::Settings;
use crate::turns::{self, is_slow};

/// What is known of one pull.
#[derive(Debug, Clone)]
pub struct Policy {
    settings: Settings,
    pieces: Pieces,
    peers: BTreeMap<u32, Peer>,
    flights: Flights,
    chance: Chance,
    /// What peers usually give, and whether that was asked since a rate changed.
    usual: Option<f64>,
    usual_is_old: bool,
}

/// One call.
#[derive(Default)]
struct Round {
    now: u64,
    fetches: Vec<Fetch>,
    end_games: [Option<EndGame>; 2],
}

impl Policy {
    /// Begins a pull.
    #[must_use]
    pub fn new(task: &Task) -> Self {
        let settings = Settings::read(&task.settings.clone().into());
        Self {
            settings,
            pieces: Pieces::new(task, settings.order),
            peers: BTreeMap::new(),
            flights: Flights::default(),
            chance: Chance::new(task.seed),
            usual: None,
            usual_is_old: false,
        }
    }

    /// Something happened, at the latest at `now`.
    pub fn observe(&mut self, now: u64, event: &Event) {
        match event {
            Event::Joined(peer) => drop(self.peer(*peer)),
            Event::Left(peer) => {
                self.forget(*peer);
                self.peers.remove(peer);
            }
            Event::Have(having) => self.has(having.peer, &having.pieces),
            Event::FetchEnded(fetched) => self.done(now, fetched),
            Event::InProgress(having) => self.coming(having.peer, &having.pieces),
            Event::Other(_) => {}
        }
    }

    fn peer(&mut self, number: u32) -> &mut Peer {
        let pieces = self.pieces.len();
        self.peers.entry(number).or_insert_with(|| Peer::new(pieces))
    }

    fn has(&mut self, number: u32, more: &[u32]) {
        let bound = self.pieces.len();
        let peer = self.peers.entry(number).or_insert_with(|| Peer::new(bound));
        if peer.banned {
            return;
        }
        for piece in more.iter().filter(|piece| (**piece as usize) < bound) {
            if peer.has.insert(*piece) {
                peer.offers.insert(*piece);
                // What was coming is counted already.
                if !peer.coming.remove(*piece) {
                    self.pieces.count(*piece, true);
                }
            }
        }
    }

    /// What a peer fetches itself counts as a copy: pulls that begin together would all fetch the same rare
    /// pieces from the one that has them, and its uplink is what the others wait for.
    fn coming(&mut self, number: u32, more: &[u32]) {
        let bound = self.pieces.len();
        let peer = self.peers.entry(number).or_insert_with(|| Peer::new(bound));
        for piece in more.iter().filter(|piece| (**piece as usize) < bound) {
            if !peer.banned && !peer.has.has(*piece) && peer.coming.insert(*piece) {
                self.pieces.count(*piece, true);
            }
        }
    }

    /// Nothing comes from a peer any more.
    fn forget(&mut self, number: u32) {
        let Some(peer) = self.peers.get_mut(&number) else { return };
        for piece in peer.has.iter().chain(peer.coming.iter()) {
            self.pieces.count(piece, false);
        }
        peer.has.clear();
        peer.coming.clear();
        peer.offers.clear();
        self.usual_is_old = true;
        let lost: Vec<u32> = self.flights.from(number).collect();
        for piece in lost {
            self.end(0, number, piece);
            self.land(piece);
        }
    }

    /// A fetch is over; how many shared its way.
    fn end(&mut self, now: u64, number: u32, piece: u32) -> Option<f64> {
        let flight = self.flights.end(piece, number)?;
        let peer = self.peers.get_mut(&number)?;
        Some(peer.end(now, flight.began, flight.traffic))
    }

    /// Puts a piece back that nobody sends any more.
    fn land(&mut self, piece: u32) {
        if self.flights.of(piece).next().is_none() {
            self.pieces.put_back(piece);
        }
    }

    fn done(&mut self, now: u64, fetched: &FetchResult) {
        let (number, piece) = (fetched.peer, fetched.piece);
        let lanes = self.end(now, number, piece).unwrap_or(1.0);
        self.learn(now, fetched, lanes);
        if fetched.fault.is_some() {
            self.pieces.keep(piece, fetched.bytes);
        } else {
            self.pieces.have(piece);
            // The host ends the other fetches; what it says of them then changes nothing here.
            let others: Vec<u32> = self.flights.of(piece).map(|(peer, _)| peer).collect();
            for other in others {
                self.end(now, other, piece);
            }
        }
        self.land(piece);
        if fetched.fault == Some(Fault::Corrupt) {
            self.peer(number).banned = true;
            self.forget(number);
        }
    }

    /// What a fetch says about its peer.
    fn learn(&mut self, now: u64, fetched: &FetchResult, lanes: f64) {
        let share = self.pieces.share(fetched.piece, fetched.bytes);
        let Some(peer) = self.peers.get_mut(&fetched.peer) else { return };
        let share = match &fetched.fault {
            None => 1.0,
            Some(Fault::Stalled) => 1.0,
            Some(_) if fetched.bytes > 0 => share,
            Some(_) => 0.0,
        };
        if share > 0.0 {
            peer.rate.learn(fetched.bytes, fetched.elapsed, lanes, share);
            self.usual_is_old = true;
        }
        match &fetched.fault {
            None => peer.succeed(),
            Some(Fault::Refused | Fault::Stalled) => {
                peer.fail(now, &mut self.chance);
                // It is asked for something else first: it may never have had this.
                peer.offers.remove(fetched.piece);
            }
            Some(Fault::Lost | Fault::Other(_)) => peer.fail(now, &mut self.chance),
            Some(Fault::Corrupt | Fault::Cancelled) => {}
        }
    }

    /// What is to be fetched now, at most `free` a slot.
    pub fn pick(&mut self, now: u64, slots: &[Slot]) -> Vec<Fetch> {
        if std::mem::take(&mut self.usual_is_old) {
            let rates = self.peers.values().filter(|peer| !peer.banned);
            self.usual = rate::usual(rates.filter_map(|peer| peer.rate.bytes_a_second()).collect());
        }
        let turns = turns::order(now, slots, &self.peers, &self.pieces, self.usual);
        let (slow, mut others): (Vec<_>, Vec<_>) = turns.into_iter().partition(|turn| turn.slow);
        let mut round = Round { now, ..Round::default() };
        while !others.is_empty() {
            others.retain_mut(|turn| {
                turn.free -= 1;
                self.launch(&mut round, turn.peer, false) && turn.free > 0
            });
        }
        for turn in slow {
            self.launch(&mut round, turn.peer, true);
        }
        round.fetches
    }

    /// Picks one fetch from a peer, if there is one.
    fn launch(&mut self, round: &mut Round, number: u32, slow: bool) -> bool {
        let piece = self.choose(round, number, slow);
        let Some(peer) = self.peers.get_mut(&number) else { return false };
        let Some(piece) = piece else {
            peer.forgive();
            return false;
        };
        let traffic = peer.begin(round.now);
        self.pieces.take(piece);
        self.flights.begin(piece, number, Flight { began: round.now, traffic });
        round.fetches.push(Fetch { peer: number, piece });
        true
    }

    fn choose(&mut self, round: &mut Round, number: u32, slow: bool) -> Option<u32> {
        let now = round.now;
        for need in Need::ALL {
            let offers = &self.peers.get(&number)?.offers;
            let first = self.pieces.first(need, offers, &mut self.chance);
            if let Some(piece) = first.filter(|piece| !slow || self.is_for_slow(now, number, need, *piece)) {
                return Some(piece);
            }
            // What only this peer has is more use than a second fetch of what is urgent.
            let busy = need == Need::Urgent && self.pieces.only_there(offers);
            if busy || self.pieces.all_flying(need).is_none() {
                continue;
            }
            // Once all is under way, nothing of this need begins in this call but second fetches.
            let known = (now, self.settings.end_game, self.usual);
            let end_game = round.end_games[need as usize]
                .get_or_insert_with(|| EndGame::of(known, need, &self.pieces, &self.peers, &self.flights));
            let second = end_game.second(number, self.peers.get(&number)?, &self.flights);
            if second.is_some() {
                return second;
            }
        }
        None
    }

    /// Whether a slow peer may fetch a piece: if no faster one can, or if it is not urgent and the slow peer has
    /// done it before the others have done all the rest.
    fn is_for_slow(&self, now: u64, number: u32, need: Need, piece: u32) -> bool {
        let faster = || self.peers.values().filter(|peer| peer.ready(now) && !is_slow(peer, self.usual));
        if !faster().any(|peer| peer.offers.has(piece)) {
            return true;
        }
        let rate = self.peers.get(&number).and_then(|peer| peer.rate.bytes_a_second()).unwrap_or(0.0);
        let rates: f64 = faster().filter_map(|peer| peer.rate.bytes_a_second()).sum();
        let (this, all) = (self.pieces.missing_of(piece) as f64, self.pieces.missing() as f64);
        need == Need::Later && this * rates <= all * rate
    }
}
