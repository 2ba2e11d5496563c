//! All peers that a pull knows.
//!
//! Invariant: a peer has an id exactly while it is connected. An id is used once. A banned or rejected peer
//! never gets an id again, and is not added again.

use std::net::SocketAddr;
use std::time::Duration;

use tightwad_core::Backoff;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::net::peer::Peer;
use crate::net::pull::fetch::ByteCounters;
use crate::picker::{Fault, PeerId, Slot};

/// Largest number of active peers from discovery and peer exchange. Peers of the user do not count.
const MAX_PEERS: usize = 64;
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

/// A peer that the pull knows.
pub(crate) struct PeerEntry {
    pub(crate) peer: Peer,
    /// Whether the user named the peer.
    pub(crate) user_supplied: bool,
    pub(crate) state: PeerState,
    pub(crate) id: Option<PeerId>,
    /// The pieces that the peer has.
    pub(crate) have: Vec<bool>,
    /// The pieces that the peer fetched at some time.
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
    pub(crate) fn add(&mut self, peer: Peer, user_supplied: bool, pieces: usize) -> Option<usize> {
        if let Some(index) = self.entries.iter().position(|entry| entry.peer == peer) {
            let entry = &mut self.entries[index];
            entry.user_supplied |= user_supplied;
            let reactivates = entry.state == PeerState::Disconnected;
            if reactivates {
                entry.state = PeerState::Active;
            }
            return reactivates.then_some(index);
        }
        let is_active = |entry: &&PeerEntry| entry.state == PeerState::Active && !entry.user_supplied;
        let active = self.entries.iter().filter(is_active).count();
        // Entries of banned peers stay, so their total is bounded too: a malicious peer can send many
        // addresses.
        if !user_supplied && (active >= MAX_PEERS || self.entries.len() >= 4 * MAX_PEERS) {
            return None;
        }
        self.entries.push(PeerEntry {
            peer,
            user_supplied,
            state: PeerState::Active,
            id: None,
            have: vec![false; pieces],
            in_progress: vec![false; pieces],
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

    /// Whether another connected peer answers from `address`. Both entries are then one machine.
    pub(crate) fn is_duplicate(&self, index: usize, address: Option<SocketAddr>) -> bool {
        let mut others = self.entries.iter().enumerate().filter(|(other, _)| *other != index);
        address.is_some() && others.any(|(_, entry)| entry.id.is_some() && entry.address == address)
    }

    /// Connects the peer at `index`: gives it a new id.
    pub(crate) fn connect(&mut self, index: usize) -> PeerId {
        let id = PeerId(u32::try_from(self.index_by_id.len()).unwrap_or(u32::MAX));
        self.index_by_id.push(index);
        let entry = &mut self.entries[index];
        entry.id = Some(id);
        entry.have.fill(false);
        entry.in_progress.fill(false);
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
        assert_eq!(peers.add(peer(1), true, 3), Some(0));
        assert_eq!(peers.add(peer(1), false, 3), None);
        let first = peers.connect(0);
        assert_eq!(peers.index_of(first), Some(0));
        peers.entries[0].id = None;
        let second = peers.connect(0);
        assert_ne!(first, second);
        assert_eq!((peers.index_of(first), peers.index_of(second)), (None, Some(0)));
        peers.entries[0].state = PeerState::Banned;
        assert_eq!(peers.add(peer(1), true, 3), None, "a banned peer stays banned");
    }

    #[test]
    fn exchanged_peers_are_bounded() {
        let mut peers = PeerTable::default();
        let added = (1..200).filter(|port| peers.add(peer(*port), false, 1).is_some()).count();
        assert_eq!(added, MAX_PEERS);
        assert!(peers.add(peer(300), true, 1).is_some());
    }

    #[test]
    fn failed_peer_backs_off() {
        let mut peers = PeerTable::default();
        peers.add(peer(1), true, 1);
        peers.connect(0);
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
        peers.add(peer(1), true, 1);
        peers.connect(0);
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
