//! The fetches of a pull, their peers, and the remaining pieces.
//!
//! Invariant: `remaining` holds the wanted pieces that are not complete. A fetch is in `active` from its
//! start until `events` has its end, exactly once. Each fetch takes a slot of its peer. `Left` follows the
//! ends of all fetches of that peer.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use crate::net::pull::event::PeerEvent;
use crate::net::pull::fetch::{ByteCounters, FetchEnd, FetchTask, PullContext};
use crate::net::pull::limits::{PullLimits, Seeding};
use crate::net::pull::peer_table::{PeerState, PeerTable};
use crate::net::pull::piece_blocks::{FetchId, PieceBlocks};
use crate::net::pull::report::{PullCounters, PullError};
use crate::net::seed::seeds::Seed;
use crate::picker::{Event, Fault, Fetch, FetchResult, Slot};

/// A running fetch.
struct ActiveFetch {
    peer_index: usize,
    piece: u32,
    from_end: bool,
    started: Instant,
    counters: ByteCounters,
    /// The start of the last measurement of the fetch's rate, and the bytes received until then.
    measured: (Instant, u64),
    task: AbortHandle,
}

impl ActiveFetch {
    /// Whether the fetch received less than `min_bytes_per_second` during the last `window`. A fetch that
    /// waits for others is not slow.
    fn is_slow(&mut self, window: Duration, min_bytes_per_second: u64) -> bool {
        let (since, before) = self.measured;
        let (elapsed, received) = (since.elapsed(), PullCounters::get(&self.counters.received));
        let waits = self.counters.waits.load(Ordering::Relaxed);
        if elapsed < window && !waits {
            return false;
        }
        self.measured = (Instant::now(), received);
        !waits && ((received - before) as f64) < min_bytes_per_second as f64 * elapsed.as_secs_f64()
    }
}

/// The fetches of a pull.
pub(crate) struct Transfers {
    pub(crate) context: Arc<PullContext>,
    pub(crate) peers: PeerTable,
    pub(crate) seeding: Option<Seeding>,
    /// Wanted pieces that were missing at the start; the urgent ones come first.
    pub(crate) order: Vec<u32>,
    pub(crate) remaining: HashSet<u32>,
    /// Events that the picker has not received yet.
    pub(crate) events: Vec<Event>,
    /// Watchers and fetches. Dropping the set aborts them.
    pub(crate) tasks: JoinSet<()>,
    pub(crate) event_tx: mpsc::Sender<PeerEvent>,
    limits: PullLimits,
    piece_blocks: HashMap<u32, Arc<PieceBlocks>>,
    active: HashMap<FetchId, ActiveFetch>,
    last_fetch_id: FetchId,
}

impl Transfers {
    pub(crate) fn new(
        context: PullContext,
        order: Vec<u32>,
        limits: &PullLimits,
        seeding: Option<Seeding>,
        event_tx: mpsc::Sender<PeerEvent>,
    ) -> Self {
        Self {
            context: Arc::new(context),
            peers: PeerTable::default(),
            seeding,
            remaining: order.iter().copied().collect(),
            order,
            events: Vec::new(),
            tasks: JoinSet::new(),
            event_tx,
            limits: limits.clone(),
            piece_blocks: HashMap::new(),
            active: HashMap::new(),
            last_fetch_id: 0,
        }
    }

    /// The free slots of all peers.
    pub(crate) fn slots(&self) -> Vec<Slot> {
        let free = self.limits.max_requests.saturating_sub(self.in_flight());
        self.peers.slots(self.limits.max_requests_per_peer, free)
    }

    /// Handles the end of a fetch's task. Fails only when the file cannot be written.
    pub(crate) fn on_fetch_ended(&mut self, fetch: FetchId, end: FetchEnd) -> Result<(), PullError> {
        // A cancelled fetch may have sent its end just before.
        let Some(active) = self.active.get(&fetch) else { return Ok(()) };
        let (peer_index, piece) = (active.peer_index, active.piece);
        let (fault, retry_after) = match end {
            FetchEnd::Store(error) => return Err(error.into()),
            FetchEnd::Complete => (None, None),
            FetchEnd::Fault(fault, retry_after) => (Some(fault), retry_after),
        };
        let kept_bytes = self.end_fetch(fetch, fault);
        if fault.is_none() || self.context.store.has_piece(piece) {
            self.complete_piece(piece);
        }
        let is_useless = self.peers.entries[peer_index].record_fetch(kept_bytes, fault, retry_after);
        if fault == Some(Fault::Corrupt) {
            self.close_peer(peer_index, PeerState::Banned, "it sent data that do not match the manifest");
        } else if is_useless {
            self.close_peer(peer_index, PeerState::Rejected, "many fetches from it in a row brought no data");
        }
        Ok(())
    }

    /// Ends fetches that receive too little while another peer could send their piece: otherwise, peers that
    /// drip could hold the last pieces for ever.
    pub(crate) fn end_slow_fetches(&mut self) -> Result<(), PullError> {
        let (window, min_rate) = (self.limits.stall_timeout, self.limits.effective_min_rate());
        let slow = self
            .active
            .iter_mut()
            .filter_map(|(fetch, active)| active.is_slow(window, min_rate).then_some((*fetch, active.piece)));
        for (fetch, piece) in slow.collect::<Vec<_>>() {
            if self.has_alternative(piece) {
                self.on_fetch_ended(fetch, FetchEnd::Fault(Fault::Stalled, None))?;
            }
        }
        Ok(())
    }

    /// Whether a peer that has `piece` waits for its blocks, or has a free slot for it.
    fn has_alternative(&self, piece: u32) -> bool {
        let mut fetches = self.active.values().filter(|active| active.piece == piece);
        let is_idle = |slot: &Slot| {
            self.peers.index_of(slot.peer).is_some_and(|peer_index| {
                self.peers.entries[peer_index].have.get(piece as usize) == Some(&true)
                    && !self.is_fetched_from(piece, peer_index)
            })
        };
        fetches.any(|active| active.counters.waits.load(Ordering::Relaxed))
            || self.slots().iter().any(is_idle)
    }

    /// Disconnects a peer permanently. `state` is [`PeerState::Banned`] or [`PeerState::Rejected`].
    pub(crate) fn close_peer(&mut self, peer_index: usize, state: PeerState, reason: &str) {
        tracing::info!(peer = %self.peers.entries[peer_index].peer, reason, "a peer is not used any more");
        self.disconnect_peer(peer_index, Fault::Cancelled);
        let entry = &mut self.peers.entries[peer_index];
        entry.last_error = Some(format!("{}: {reason}", entry.peer));
        entry.state = state;
        if let Some(watcher) = entry.watcher.take() {
            watcher.abort();
        }
    }

    /// Disconnects a peer: ends its fetches with `fault`, then reports [`Event::Left`].
    pub(crate) fn disconnect_peer(&mut self, peer_index: usize, fault: Fault) {
        let fetches = self.active.iter().filter(|(_, active)| active.peer_index == peer_index);
        for fetch in fetches.map(|(fetch, _)| *fetch).collect::<Vec<_>>() {
            self.end_fetch(fetch, Some(fault));
        }
        let entry = &mut self.peers.entries[peer_index];
        entry.in_flight = 0;
        (entry.have, entry.in_progress) = (Vec::new(), Vec::new());
        if let Some(id) = entry.id.take() {
            self.events.push(Event::Left(id));
        }
    }

    /// Removes `fetch`, aborts its task and reports its end. Returns its kept bytes.
    fn end_fetch(&mut self, fetch: FetchId, fault: Option<Fault>) -> u64 {
        let Some(active) = self.active.remove(&fetch) else { return 0 };
        active.task.abort();
        if !self.active.values().any(|other| other.piece == active.piece)
            && let Some(seed) = self.seed()
        {
            seed.end_piece(active.piece);
        }
        let bytes = PullCounters::get(&active.counters.fetch);
        if let Some(peer) = self.peers.entries[active.peer_index].id {
            let elapsed = active.started.elapsed();
            let result = FetchResult { peer, piece: active.piece, bytes, elapsed, fault };
            self.events.push(Event::FetchEnded(result));
        }
        bytes
    }

    /// Removes a complete piece from the remaining ones, and cancels its other fetches.
    pub(crate) fn complete_piece(&mut self, piece: u32) {
        if !self.remaining.remove(&piece) {
            return;
        }
        self.piece_blocks.remove(&piece);
        let others = self.active.iter().filter(|(_, active)| active.piece == piece);
        for fetch in others.map(|(fetch, _)| *fetch).collect::<Vec<_>>() {
            let peer_index = self.active[&fetch].peer_index;
            let kept_bytes = self.end_fetch(fetch, Some(Fault::Cancelled));
            self.peers.entries[peer_index].record_fetch(kept_bytes, Some(Fault::Cancelled), None);
        }
        // The notification follows the end of all fetches: the piece is then not in progress any more.
        if let Some(seed) = self.seed() {
            seed.notify_changed();
        }
    }

    /// The model in the registry of seeds, if this pull seeds.
    fn seed(&self) -> Option<Arc<Seed>> {
        self.seeding.as_ref().and_then(|seeding| seeding.seeds.get(self.context.root))
    }

    /// Starts a fetch of the piece's missing blocks.
    fn start_fetch(&mut self, peer_index: usize, piece: u32) {
        let store = &self.context.store;
        // Another writer of the store, or the last write of a cancelled fetch, may have completed the piece.
        if store.has_piece(piece) {
            return self.complete_piece(piece);
        }
        let parent = &store.manifest().pieces()[piece as usize];
        let blocks = self
            .piece_blocks
            .entry(piece)
            .or_insert_with(|| Arc::new(PieceBlocks::new(parent, &store.missing_blocks(piece))));
        let others = self.active.values().filter(|active| active.piece == piece);
        let balance: i32 = others.map(|active| if active.from_end { -1 } else { 1 }).sum();
        let entry = &mut self.peers.entries[peer_index];
        entry.in_flight += 1;
        self.last_fetch_id += 1;
        let fetch = FetchTask {
            id: self.last_fetch_id,
            piece,
            peer: entry.peer.clone(),
            blocks: blocks.clone(),
            from_end: balance > 0,
            context: self.context.clone(),
            counters: ByteCounters { peer: entry.counters.peer.clone(), ..ByteCounters::default() },
        };
        let (id, from_end, counters) = (fetch.id, fetch.from_end, fetch.counters.clone());
        let event_tx = self.event_tx.clone();
        let task = self.tasks.spawn(async move {
            let end = fetch.run().await;
            let _ = event_tx.send(PeerEvent::FetchEnded(id, end)).await;
        });
        let started = Instant::now();
        let measured = (started, 0);
        self.active
            .insert(id, ActiveFetch { peer_index, piece, from_end, started, counters, measured, task });
        if let Some(seed) = self.seed() {
            seed.start_piece(piece);
        }
    }

    /// The number of running fetches.
    pub(crate) fn in_flight(&self) -> u32 {
        u32::try_from(self.active.len()).unwrap_or(u32::MAX)
    }

    /// The number of running fetches of `piece`.
    fn fetches_of(&self, piece: u32) -> usize {
        self.active.values().filter(|active| active.piece == piece).count()
    }

    /// Whether a fetch of `piece` from this peer runs.
    fn is_fetched_from(&self, piece: u32, peer_index: usize) -> bool {
        self.active.values().any(|active| active.piece == piece && active.peer_index == peer_index)
    }

    /// Starts the fetch `pick` if that is possible. Otherwise, reports the fetch as cancelled to the picker.
    pub(crate) fn accept_pick(&mut self, pick: Fetch, slots: &[Slot]) {
        let offered = slots.iter().any(|slot| slot.peer == pick.peer);
        let Some(peer_index) = self.peers.index_of(pick.peer).filter(|_| offered) else { return };
        let entry = &self.peers.entries[peer_index];
        let has_piece = entry.have.get(pick.piece as usize).copied().unwrap_or(false);
        let has_slot = entry.free_slots(self.limits.max_requests_per_peer) > 0
            && self.in_flight() < self.limits.max_requests;
        let is_new = self.remaining.contains(&pick.piece) && !self.is_fetched_from(pick.piece, peer_index);
        if has_piece && has_slot && is_new {
            self.start_fetch(peer_index, pick.piece);
        } else {
            let (peer, piece, fault) = (pick.peer, pick.piece, Some(Fault::Cancelled));
            let result = FetchResult { peer, piece, bytes: 0, elapsed: Duration::ZERO, fault };
            self.events.push(Event::FetchEnded(result));
        }
    }

    /// Starts one fetch per peer in turn, until all slots are in use or no piece remains.
    pub(crate) fn fetch_in_order(&mut self, slots: &[Slot]) {
        let mut finished_slots = HashSet::new();
        while finished_slots.len() < slots.len() {
            for (number, slot) in slots.iter().enumerate() {
                let next = self.next_piece_for(slot);
                if next.is_none() {
                    finished_slots.insert(number);
                }
                if let Some((peer_index, piece)) = next {
                    self.start_fetch(peer_index, piece);
                }
            }
        }
    }

    /// The first piece that no fetch runs for. When there is none, the first piece with a single fetch, from
    /// another peer.
    pub(crate) fn next_piece_for(&self, slot: &Slot) -> Option<(usize, u32)> {
        let peer_index = self.peers.index_of(slot.peer)?;
        let entry = &self.peers.entries[peer_index];
        if entry.free_slots(self.limits.max_requests_per_peer) == 0
            || self.in_flight() >= self.limits.max_requests
        {
            return None;
        }
        let is_open =
            |piece: &&u32| entry.have.get(**piece as usize) == Some(&true) && self.remaining.contains(piece);
        let open = || self.order.iter().filter(is_open);
        let new = open().find(|piece| self.fetches_of(**piece) == 0);
        let shared = || {
            open().find(|piece| self.fetches_of(**piece) == 1 && !self.is_fetched_from(**piece, peer_index))
        };
        new.or_else(shared).map(|piece| (peer_index, *piece))
    }
}
