//! Everybody that a pull knows.
//!
//! Invariant: a source has a peer id exactly while it is there; ids are given out once. A source that is
//! banned or shut never gets one again, and is not added a second time.

use std::net::SocketAddr;
use std::time::Duration;

use tightwad_core::Backoff;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::net::peer::Peer;
use crate::net::pull::fetch::Kept;
use crate::picker::{Fault, PeerId, Slot};

/// Sources that a pull knows at the same time, at most; those that the user gave come on top.
const MOST: usize = 64;
/// Longest rest of a peer that failed.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
/// Fetches in a row that may bring nothing before a peer is given up.
const FRUITLESS: u32 = 32;

/// Fetches after which a busy peer may be asked for one more at the same time.
const AGAIN: u32 = 8;

/// Whether a source may come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It is being watched.
    Watched,
    /// It went away; it may be added again.
    Gone,
    /// It sent what is wrong.
    Banned,
    /// It does not serve this machine, is this machine, or brings nothing.
    Shut,
}

/// Somebody who may have the model.
pub(crate) struct Source {
    pub(crate) peer: Peer,
    pub(crate) given: bool,
    pub(crate) standing: Standing,
    pub(crate) id: Option<PeerId>,
    /// Which pieces it has.
    pub(crate) has: Vec<bool>,
    /// Which pieces it was fetching, or has.
    pub(crate) coming: Vec<bool>,
    /// Fetches that run.
    pub(crate) busy: u32,
    /// How many may run, as far as its answers show.
    most: u32,
    /// Fetches since that was found out.
    since: u32,
    /// Not asked before.
    pub(crate) rests: Option<Instant>,
    pub(crate) fruitless: u32,
    pub(crate) kept: Kept,
    /// What went wrong last.
    pub(crate) why: Option<String>,
    pub(crate) address: Option<SocketAddr>,
    pub(crate) watcher: Option<AbortHandle>,
}

/// All of them.
#[derive(Default)]
pub(crate) struct Sources {
    pub(crate) all: Vec<Source>,
    /// Whose each peer id is.
    of: Vec<usize>,
}

impl Sources {
    /// Adds `peer`, or takes it up again; its number when it is to be watched now.
    pub(crate) fn add(&mut self, peer: Peer, given: bool, pieces: usize) -> Option<usize> {
        if let Some(number) = self.all.iter().position(|source| source.peer == peer) {
            let known = &mut self.all[number];
            known.given |= given;
            let again = known.standing == Standing::Gone;
            if again {
                known.standing = Standing::Watched;
            }
            return again.then_some(number);
        }
        let watched = self.all.iter().filter(|source| source.standing == Standing::Watched && !source.given);
        // What is banned is remembered; a liar must not fill the memory with others.
        if !given && (watched.count() >= MOST || self.all.len() >= 4 * MOST) {
            return None;
        }
        self.all.push(Source {
            peer,
            given,
            standing: Standing::Watched,
            id: None,
            has: vec![false; pieces],
            coming: vec![false; pieces],
            busy: 0,
            most: u32::MAX,
            since: 0,
            rests: None,
            fruitless: 0,
            kept: Kept::default(),
            why: None,
            address: None,
            watcher: None,
        });
        Some(self.all.len() - 1)
    }

    /// True when another source that is there answers from `address`: both are one machine.
    pub(crate) fn is_double(&self, number: usize, address: Option<SocketAddr>) -> bool {
        let there =
            self.all.iter().enumerate().filter(|(other, source)| *other != number && source.id.is_some());
        address.is_some() && there.into_iter().any(|(_, source)| source.address == address)
    }

    /// Gives `number` a new id.
    pub(crate) fn join(&mut self, number: usize) -> PeerId {
        let id = PeerId(u32::try_from(self.of.len()).unwrap_or(u32::MAX));
        self.of.push(number);
        let source = &mut self.all[number];
        source.id = Some(id);
        source.has.fill(false);
        source.coming.fill(false);
        (source.rests, source.fruitless, source.why) = (None, 0, None);
        (source.most, source.since) = (u32::MAX, 0);
        id
    }

    /// The source that is there as `id`.
    pub(crate) fn find(&self, id: PeerId) -> Option<usize> {
        let number = *self.of.get(id.0 as usize)?;
        (self.all[number].id == Some(id)).then_some(number)
    }

    /// How many are there.
    pub(crate) fn there(&self) -> usize {
        self.all.iter().filter(|source| source.id.is_some()).count()
    }

    /// Who may be given how many fetches now: `most` each, `together` at most.
    pub(crate) fn slots(&self, most: u32, together: u32) -> Vec<Slot> {
        let now = Instant::now();
        let awake = self.all.iter().filter(|source| source.rests.is_none_or(|until| until <= now));
        let slots = awake.filter_map(|source| {
            let free = source.free(most).min(together);
            source.id.filter(|_| free > 0).map(|peer| Slot { peer, free })
        });
        slots.collect()
    }

    /// When the next one has rested.
    pub(crate) fn wakes(&self) -> Option<Instant> {
        let now = Instant::now();
        self.all
            .iter()
            .filter(|source| source.id.is_some())
            .filter_map(|source| source.rests)
            .filter(|until| *until > now)
            .min()
    }

    /// True when some may still answer.
    pub(crate) fn hope(&self) -> bool {
        self.all.iter().any(|source| source.standing == Standing::Watched)
    }

    /// What became of everybody, in words.
    pub(crate) fn story(&self) -> String {
        let told = self.all.iter().filter_map(|source| {
            let why = source.why.as_deref();
            match (source.standing, source.id) {
                (Standing::Banned, _) => Some(format!("{} sent wrong data", source.peer)),
                (_, Some(_)) => Some(format!("{} does not have them or does not send them", source.peer)),
                _ => why.map(str::to_owned),
            }
        });
        let told: Vec<_> = told.take(8).collect();
        if told.is_empty() { "no peer is known".to_owned() } else { told.join("; ") }
    }
}

impl Source {
    /// How many more fetches it may be given, when `most` are usual.
    pub(crate) fn free(&self, most: u32) -> u32 {
        most.min(self.most).saturating_sub(self.busy)
    }

    fn went_well(&mut self, brought: u64) {
        if brought > 0 {
            self.fruitless = 0;
        }
        self.since += 1;
        if self.since >= AGAIN {
            (self.most, self.since) = (self.most.saturating_add(1), 0);
        }
    }

    /// Remembers how a fetch went: a peer that failed rests, ever longer. True when it is to be given up.
    pub(crate) fn judge(&mut self, brought: u64, fault: Option<Fault>, asked: Option<Duration>) -> bool {
        self.busy = self.busy.saturating_sub(1);
        let failed = matches!(fault, Some(Fault::Refused | Fault::Stalled | Fault::Lost));
        if !failed {
            self.went_well(brought);
            return false;
        }
        // It sends to this machine already, but not more at the same time.
        if asked.is_some() && self.busy > 0 {
            (self.most, self.since) = (self.busy, 0);
            return false;
        }
        // A busy peer that says so is not at fault.
        self.fruitless = if brought > 0 { 0 } else { self.fruitless + u32::from(asked.is_none()) };
        let now = Instant::now();
        if self.rests.is_none_or(|until| until <= now) {
            let rest = asked.unwrap_or_else(|| BACKOFF.jittered(self.fruitless.saturating_sub(1)));
            self.rests = Some(now + rest);
        }
        self.fruitless >= FRUITLESS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(port: u16) -> Peer {
        Peer::seeder(&format!("10.0.0.1:{port}")).unwrap()
    }

    #[test]
    fn nobody_is_added_twice_and_ids_are_new() {
        let mut sources = Sources::default();
        assert_eq!(sources.add(peer(1), true, 3), Some(0));
        assert_eq!(sources.add(peer(1), false, 3), None);
        let first = sources.join(0);
        assert_eq!(sources.find(first), Some(0));
        sources.all[0].id = None;
        let second = sources.join(0);
        assert_ne!(first, second);
        assert_eq!((sources.find(first), sources.find(second)), (None, Some(0)));
        sources.all[0].standing = Standing::Banned;
        assert_eq!(sources.add(peer(1), true, 3), None, "banned is banned");
    }

    #[test]
    fn hearsay_is_bounded() {
        let mut sources = Sources::default();
        let added = (1..200).filter(|port| sources.add(peer(*port), false, 1).is_some()).count();
        assert_eq!(added, MOST);
        assert!(sources.add(peer(300), true, 1).is_some());
    }

    #[test]
    fn who_fails_rests() {
        let mut sources = Sources::default();
        sources.add(peer(1), true, 1);
        sources.join(0);
        assert_eq!(sources.slots(4, 10).len(), 1);
        assert!(!sources.all[0].judge(0, Some(Fault::Lost), None));
        assert!(sources.slots(4, 10).is_empty() && sources.wakes().is_some());
        let given_up = (0..FRUITLESS).filter(|_| sources.all[0].judge(0, Some(Fault::Stalled), None)).count();
        assert!(given_up > 0);
    }

    #[test]
    fn who_is_busy_is_asked_for_less() {
        let mut sources = Sources::default();
        sources.add(peer(1), true, 1);
        sources.join(0);
        let source = &mut sources.all[0];
        source.busy = 3;
        assert!(!source.judge(0, Some(Fault::Refused), Some(Duration::from_secs(1))));
        assert_eq!((source.busy, source.free(4)), (2, 0));
        assert!(source.rests.is_none(), "what runs goes on");
        for _ in 0..AGAIN {
            source.busy = 3;
            source.judge(1, None, None);
        }
        assert_eq!((source.busy, source.free(4)), (2, 1));
    }
}
