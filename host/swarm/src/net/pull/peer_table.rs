//! All peers that a pull knows.
//!
//! Invariant: a peer has an id exactly while it is connected. An id is used once. A banned or rejected peer
//! never gets an id again, and is not added again.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tightwad_core::Backoff;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::net::peer::{MAX_PEERS_PER_ADDRESS, Peer};
use crate::net::pull::fetch::ByteCounters;
use crate::picker::{Fault, PeerId, Slot};

/// Largest number of active peers from discovery and peer exchange. Peers of the user do not count in any
/// limit, and are never refused.
const MAX_PEERS: usize = 64;
/// Largest number of peers from discovery, over the whole pull.
const MAX_DISCOVERED_PEERS: usize = 64;
/// Largest number of peers from peer exchange, over the whole pull. Entries of banned peers stay.
const MAX_EXCHANGED_PEERS: usize = 192;
/// Largest number of peers that one peer may tell.
const MAX_PEERS_PER_TELLER: usize = 16;
/// Backoff of a peer whose fetch failed.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
/// Consecutive fetches without data after which a peer is rejected.
const MAX_CONSECUTIVE_FAILURES: u32 = 32;
/// Fetches after which a peer that reached its limit may get one more fetch at the same time.
const FETCHES_PER_LIMIT_STEP: u32 = 8;

/// The state of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PeerState {
    /// A watcher asks the peer.
    Active,
    /// The peer failed too often, and its watcher ended. The peer may be added again.
    Disconnected,
    /// The peer sent wrong bytes.
    Banned,
    /// The peer refuses this machine, is this machine, or sends nothing.
    Rejected,
}

/// The party that named a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PeerOrigin {
    /// The user.
    User,
    /// Discovery on the local network.
    Discovery,
    /// The peer at this address, by peer exchange.
    Exchange(IpAddr),
}

/// A peer that the pull knows.
pub(crate) struct PeerEntry {
    pub(crate) peer: Peer,
    pub(crate) origin: PeerOrigin,
    pub(crate) state: PeerState,
    pub(crate) id: Option<PeerId>,
    /// The pieces that the peer has. Empty while the peer is not connected.
    pub(crate) have: Vec<bool>,
    /// The pieces that the peer fetched at some time. Empty while the peer is not connected.
    pub(crate) in_progress: Vec<bool>,
    /// The number of running fetches from the peer.
    pub(crate) in_flight: u32,
    /// The number of fetches that the peer serves at the same time, as far as its replies show.
    max_in_flight: u32,
    /// Fetches that ended since `max_in_flight` changed.
    fetches_since_change: u32,
    /// The peer gets no fetch before this time.
    pub(crate) backoff_until: Option<Instant>,
    pub(crate) consecutive_failures: u32,
    pub(crate) counters: ByteCounters,
    pub(crate) last_error: Option<String>,
    pub(crate) address: Option<SocketAddr>,
    pub(crate) watcher: Option<AbortHandle>,
}

/// The peers of a pull.
#[derive(Default)]
pub(crate) struct PeerTable {
    pub(crate) entries: Vec<PeerEntry>,
    /// The index of the entry of each peer id.
    index_by_id: Vec<usize>,
}

impl PeerTable {
    /// Adds `peer`, or reactivates it. Returns its index when it needs a new watcher.
    pub(crate) fn add(&mut self, peer: Peer, origin: PeerOrigin) -> Option<usize> {
        if let Some(index) = self.entries.iter().position(|entry| entry.peer == peer) {
            let entry = &mut self.entries[index];
            if origin == PeerOrigin::User {
                entry.origin = origin;
            }
            let reactivates = entry.state == PeerState::Disconnected;
            if reactivates {
                entry.state = PeerState::Active;
            }
            return reactivates.then_some(index);
        }
        if !self.has_room(&peer, origin) {
            return None;
        }
        self.entries.push(PeerEntry {
            peer,
            origin,
            state: PeerState::Active,
            id: None,
            have: Vec::new(),
            in_progress: Vec::new(),
            in_flight: 0,
            max_in_flight: u32::MAX,
            fetches_since_change: 0,
            backoff_until: None,
            consecutive_failures: 0,
            counters: ByteCounters::default(),
            last_error: None,
            address: None,
            watcher: None,
        });
        Some(self.entries.len() - 1)
    }

    /// Whether the limits admit a further peer.
    fn has_room(&self, peer: &Peer, origin: PeerOrigin) -> bool {
        let count = |counts: &dyn Fn(&PeerEntry) -> bool| {
            let others = self.entries.iter().filter(|entry| entry.origin != PeerOrigin::User);
            others.filter(|entry| counts(entry)).count()
        };
        let is_exchanged = |entry: &PeerEntry| matches!(entry.origin, PeerOrigin::Exchange(_));
        let has_room_of_origin = match origin {
            PeerOrigin::User => return true,
            PeerOrigin::Discovery => count(&|entry| entry.origin == origin) < MAX_DISCOVERED_PEERS,
            PeerOrigin::Exchange(_) => {
                count(&|entry| entry.origin == origin) < MAX_PEERS_PER_TELLER
                    && count(&is_exchanged) < MAX_EXCHANGED_PEERS
            }
        };
        has_room_of_origin
            && count(&|entry| entry.state == PeerState::Active) < MAX_PEERS
            && count(&|entry| entry.peer.host() == peer.host()) < MAX_PEERS_PER_ADDRESS
    }

    /// The index of another connected peer that answers from `address`. Both entries are then one machine.
    pub(crate) fn duplicate_of(&self, index: usize, address: Option<SocketAddr>) -> Option<usize> {
        let mut others = self.entries.iter().enumerate().filter(|(other, _)| *other != index);
        let duplicate = others
            .find(|(_, entry)| entry.id.is_some() && entry.address.is_some() && entry.address == address);
        duplicate.map(|(other, _)| other)
    }

    /// Connects the peer at `index` of a file with `pieces` pieces: gives it a new id.
    pub(crate) fn connect(&mut self, index: usize, pieces: usize) -> PeerId {
        let id = PeerId(u32::try_from(self.index_by_id.len()).unwrap_or(u32::MAX));
        self.index_by_id.push(index);
        let entry = &mut self.entries[index];
        entry.id = Some(id);
        (entry.have, entry.in_progress) = (vec![false; pieces], vec![false; pieces]);
        (entry.backoff_until, entry.consecutive_failures, entry.last_error) = (None, 0, None);
        (entry.max_in_flight, entry.fetches_since_change) = (u32::MAX, 0);
        id
    }

    /// The index of the connected peer with this id.
    pub(crate) fn index_of(&self, id: PeerId) -> Option<usize> {
        let index = *self.index_by_id.get(id.0 as usize)?;
        (self.entries[index].id == Some(id)).then_some(index)
    }

    /// The number of connected peers.
    pub(crate) fn connected(&self) -> usize {
        self.entries.iter().filter(|entry| entry.id.is_some()).count()
    }

    /// The peers that can get fetches now, each with its number of free slots: at most `max_per_peer`, and at most `max`.
    pub(crate) fn slots(&self, max_per_peer: u32, max: u32) -> Vec<Slot> {
        let now = Instant::now();
        let without_backoff =
            self.entries.iter().filter(|entry| entry.backoff_until.is_none_or(|until| until <= now));
        let slots = without_backoff.filter_map(|entry| {
            let free = entry.free_slots(max_per_peer).min(max);
            entry.id.filter(|_| free > 0).map(|peer| Slot { peer, free })
        });
        slots.collect()
    }

    /// The time at which the next backoff of a connected peer ends.
    pub(crate) fn next_retry(&self) -> Option<Instant> {
        let now = Instant::now();
        self.entries
            .iter()
            .filter(|entry| entry.id.is_some())
            .filter_map(|entry| entry.backoff_until)
            .filter(|until| *until > now)
            .min()
    }

    /// Whether any peer is active.
    pub(crate) fn has_active_peer(&self) -> bool {
        self.entries.iter().any(|entry| entry.state == PeerState::Active)
    }

    /// The failures of the peers as text, for an error message.
    pub(crate) fn failure_summary(&self) -> String {
        let failures = self.entries.iter().filter_map(|entry| match (entry.state, entry.id) {
            (PeerState::Banned, _) => Some(format!("{} sent wrong data", entry.peer)),
            (_, Some(_)) => Some(format!("{} does not have them or does not send them", entry.peer)),
            _ => entry.last_error.clone(),
        });
        let failures: Vec<_> = failures.take(8).collect();
        if failures.is_empty() { "no peer is known".to_owned() } else { failures.join("; ") }
    }
}

impl PeerEntry {
    /// The number of further fetches for this peer, with at most `max_per_peer` at the same time.
    pub(crate) fn free_slots(&self, max_per_peer: u32) -> u32 {
        max_per_peer.min(self.max_in_flight).saturating_sub(self.in_flight)
    }

    fn record_success(&mut self, kept_bytes: u64) {
        if kept_bytes > 0 {
            self.consecutive_failures = 0;
        }
        self.fetches_since_change += 1;
        if self.fetches_since_change >= FETCHES_PER_LIMIT_STEP {
            (self.max_in_flight, self.fetches_since_change) = (self.max_in_flight.saturating_add(1), 0);
        }
    }

    /// Records the end of a fetch. A failed peer gets a growing backoff. True when the peer failed too often
    /// and must be rejected.
    pub(crate) fn record_fetch(
        &mut self,
        kept_bytes: u64,
        fault: Option<Fault>,
        retry_after: Option<Duration>,
    ) -> bool {
        self.in_flight = self.in_flight.saturating_sub(1);
        let failed = matches!(fault, Some(Fault::Refused | Fault::Stalled | Fault::Lost));
        if !failed {
            self.record_success(kept_bytes);
            return false;
        }
        // The peer serves other fetches of this machine: it only reached its limit.
        if retry_after.is_some() && self.in_flight > 0 {
            (self.max_in_flight, self.fetches_since_change) = (self.in_flight, 0);
            return false;
        }
        // A peer that sends `Retry-After` is busy, which is not a failure.
        let failures = self.consecutive_failures + u32::from(retry_after.is_none());
        self.consecutive_failures = if kept_bytes > 0 { 0 } else { failures };
        let now = Instant::now();
        if self.backoff_until.is_none_or(|until| until <= now) {
            let backoff = retry_after
                .unwrap_or_else(|| BACKOFF.jittered_delay(self.consecutive_failures.saturating_sub(1)));
            self.backoff_until = Some(now + backoff);
        }
        self.consecutive_failures >= MAX_CONSECUTIVE_FAILURES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(port: u16) -> Peer {
        Peer::seeder(&format!("10.0.0.1:{port}")).unwrap()
    }

    #[test]
    fn peer_is_added_once_and_each_connection_has_a_new_id() {
        let mut peers = PeerTable::default();
        assert_eq!(peers.add(peer(1), PeerOrigin::User), Some(0));
        assert_eq!(peers.add(peer(1), PeerOrigin::Discovery), None);
        let first = peers.connect(0, 3);
        assert_eq!(peers.index_of(first), Some(0));
        peers.entries[0].id = None;
        let second = peers.connect(0, 3);
        assert_ne!(first, second);
        assert_eq!((peers.index_of(first), peers.index_of(second)), (None, Some(0)));
        peers.entries[0].state = PeerState::Banned;
        assert_eq!(peers.add(peer(1), PeerOrigin::User), None, "a banned peer stays banned");
    }

    /// A peer at the address `10.0.NETWORK.MACHINE`.
    fn peer_at(network: u8, machine: u8) -> Peer {
        Peer::seeder(&format!("10.0.{network}.{machine}:7712")).unwrap()
    }

    #[test]
    fn one_address_gets_few_entries() {
        let mut peers = PeerTable::default();
        let added = (1..200).filter(|port| peers.add(peer(*port), PeerOrigin::Discovery).is_some());
        assert_eq!(added.count(), MAX_PEERS_PER_ADDRESS);
        assert!(peers.add(peer_at(1, 1), PeerOrigin::Discovery).is_some());
        assert!(peers.add(peer(300), PeerOrigin::User).is_some());
    }

    #[test]
    fn one_teller_gets_few_entries() {
        let mut peers = PeerTable::default();
        let mut add = |network, machine, origin| {
            let index = peers.add(peer_at(network, machine), origin);
            // Dead peers free their places among the active ones, but stay in the table.
            index.map(|index| peers.entries[index].state = PeerState::Disconnected).is_some()
        };
        let mut tell = |teller: u8| {
            let origin = PeerOrigin::Exchange(IpAddr::from([10, 0, 0, teller]));
            (0..200).filter(|machine| add(teller, *machine, origin)).count()
        };
        assert_eq!(tell(1), MAX_PEERS_PER_TELLER);
        assert_eq!(tell(2), MAX_PEERS_PER_TELLER);
        let all: usize = (3..100).map(&mut tell).sum();
        assert_eq!(all, MAX_EXCHANGED_PEERS - 2 * MAX_PEERS_PER_TELLER);
        let discovered = (0..200).filter(|machine| add(200, *machine, PeerOrigin::Discovery)).count();
        assert_eq!(discovered, MAX_DISCOVERED_PEERS);
        assert!(add(201, 1, PeerOrigin::User));
    }

    #[test]
    fn failed_peer_backs_off() {
        let mut peers = PeerTable::default();
        peers.add(peer(1), PeerOrigin::User);
        peers.connect(0, 1);
        assert_eq!(peers.slots(4, 10).len(), 1);
        assert!(!peers.entries[0].record_fetch(0, Some(Fault::Lost), None));
        assert!(peers.slots(4, 10).is_empty() && peers.next_retry().is_some());
        let is_rejected = |_: &u32| peers.entries[0].record_fetch(0, Some(Fault::Stalled), None);
        let rejections = (0..MAX_CONSECUTIVE_FAILURES).filter(is_rejected).count();
        assert!(rejections > 0);
    }

    #[test]
    fn busy_peer_gets_fewer_fetches() {
        let mut peers = PeerTable::default();
        peers.add(peer(1), PeerOrigin::User);
        peers.connect(0, 1);
        let entry = &mut peers.entries[0];
        entry.in_flight = 3;
        assert!(!entry.record_fetch(0, Some(Fault::Refused), Some(Duration::from_secs(1))));
        assert_eq!((entry.in_flight, entry.free_slots(4)), (2, 0));
        assert!(entry.backoff_until.is_none(), "the running fetches continue");
        for _ in 0..FETCHES_PER_LIMIT_STEP {
            entry.in_flight = 3;
            entry.record_fetch(1, None, None);
        }
        assert_eq!((entry.in_flight, entry.free_slots(4)), (2, 1));
    }
}
