//! The fetches of a pull, the sources that they use, and the pieces that are left.
//!
//! Invariant: `left` holds the wanted pieces that are not complete. A fetch is in `active` from its beginning
//! until its end is in `events`, exactly once; each one takes a slot of its source. `Left` comes after the
//! end of all fetches of that peer.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use crate::net::pull::event::PeerEvent;
use crate::net::pull::fetch::{End, Fetching, Ground, Kept};
use crate::net::pull::limits::{Limits, Seeding};
use crate::net::pull::report::{PullError, Tally};
use crate::net::pull::sources::{Sources, Standing};
use crate::net::pull::work::{FetchId, Work};
use crate::net::seed::seeds::Seed;
use crate::picker::{Event, Fault, Fetch, Fetched, Slot};

/// A fetch that runs.
struct Active {
    source: usize,
    piece: u32,
    from_end: bool,
    began: Instant,
    kept: Kept,
    task: AbortHandle,
}

/// The fetches of a pull.
pub(crate) struct Transfers {
    pub(crate) ground: Arc<Ground>,
    pub(crate) sources: Sources,
    pub(crate) seeding: Option<Seeding>,
    /// Wanted pieces that were missing in the beginning; the urgent ones come first.
    pub(crate) order: Vec<u32>,
    pub(crate) left: HashSet<u32>,
    /// Events that the picker has not received yet.
    pub(crate) events: Vec<Event>,
    /// Watchers and fetches; they end with this.
    pub(crate) tasks: JoinSet<()>,
    pub(crate) sender: mpsc::Sender<PeerEvent>,
    requests_per_peer: u32,
    requests: u32,
    works: HashMap<u32, Arc<Work>>,
    active: HashMap<FetchId, Active>,
    /// The number of fetches so far: names the next one.
    fetches: FetchId,
}

impl Transfers {
    pub(crate) fn new(
        ground: Ground,
        order: Vec<u32>,
        limits: &Limits,
        seeding: Option<Seeding>,
        sender: mpsc::Sender<PeerEvent>,
    ) -> Self {
        Self {
            ground: Arc::new(ground),
            sources: Sources::default(),
            seeding,
            left: order.iter().copied().collect(),
            order,
            events: Vec::new(),
            tasks: JoinSet::new(),
            sender,
            requests_per_peer: limits.requests_a_peer,
            requests: limits.requests,
            works: HashMap::new(),
            active: HashMap::new(),
            fetches: 0,
        }
    }

    /// The slots that are free.
    pub(crate) fn slots(&self) -> Vec<Slot> {
        let together = self.requests.saturating_sub(self.running());
        self.sources.slots(self.requests_per_peer, together)
    }

    /// Ends `fetch` by itself; fails only when the file cannot be written.
    pub(crate) fn ended(&mut self, fetch: FetchId, end: End) -> Result<(), PullError> {
        // One that was cancelled may have ended by itself just before.
        let Some(active) = self.active.get(&fetch) else { return Ok(()) };
        let (source, piece) = (active.source, active.piece);
        let (fault, pause) = match end {
            End::Store(error) => return Err(error.into()),
            End::Complete => (None, None),
            End::Fault(fault, pause) => (Some(fault), pause),
        };
        let brought = self.over(fetch, fault);
        if fault.is_none() || self.ground.store.has(piece) {
            self.complete(piece);
        }
        let given_up = self.sources.all[source].judge(brought, fault, pause);
        if fault == Some(Fault::Corrupt) {
            self.shut(source, Standing::Banned, "it sent what the manifest does not say");
        } else if given_up {
            self.shut(source, Standing::Shut, "none of many fetches from it brought anything");
        }
        Ok(())
    }

    /// Never asks `source` again.
    pub(crate) fn shut(&mut self, source: usize, standing: Standing, why: &str) {
        tracing::info!(peer = %self.sources.all[source].peer, why, "a peer is not used any more");
        self.leave(source, Fault::Cancelled);
        let known = &mut self.sources.all[source];
        known.why = Some(format!("{}: {why}", known.peer));
        known.standing = standing;
        if let Some(watcher) = known.watcher.take() {
            watcher.abort();
        }
    }

    /// `source` is no longer there: its fetches are over, and then it has left.
    pub(crate) fn leave(&mut self, source: usize, fault: Fault) {
        let fetches = self.active.iter().filter(|(_, active)| active.source == source);
        for fetch in fetches.map(|(fetch, _)| *fetch).collect::<Vec<_>>() {
            self.over(fetch, Some(fault));
        }
        let known = &mut self.sources.all[source];
        known.busy = 0;
        if let Some(id) = known.id.take() {
            self.events.push(Event::Left(id));
        }
    }

    /// Takes `fetch` out and says how it ended; the bytes that it brought.
    fn over(&mut self, fetch: FetchId, fault: Option<Fault>) -> u64 {
        let Some(active) = self.active.remove(&fetch) else { return 0 };
        active.task.abort();
        if !self.active.values().any(|other| other.piece == active.piece)
            && let Some(seed) = self.seed()
        {
            seed.comes(active.piece, false);
        }
        let bytes = Tally::of(&active.kept.fetch);
        if let Some(peer) = self.sources.all[active.source].id {
            let took = active.began.elapsed();
            self.events.push(Event::Done(Fetched { peer, piece: active.piece, bytes, took, fault }));
        }
        bytes
    }

    /// `piece` is had: whoever else fetches it need not.
    pub(crate) fn complete(&mut self, piece: u32) {
        if !self.left.remove(&piece) {
            return;
        }
        self.works.remove(&piece);
        let others = self.active.iter().filter(|(_, active)| active.piece == piece);
        for fetch in others.map(|(fetch, _)| *fetch).collect::<Vec<_>>() {
            let source = self.active[&fetch].source;
            let brought = self.over(fetch, Some(Fault::Cancelled));
            self.sources.all[source].judge(brought, Some(Fault::Cancelled), None);
        }
        // All fetches of it are over: it is not coming any more.
        if let Some(seed) = self.seed() {
            seed.changed();
        }
    }

    /// This model, where it is seeded meanwhile.
    fn seed(&self) -> Option<Arc<Seed>> {
        self.seeding.as_ref().and_then(|seeding| seeding.seeds.get(self.ground.root))
    }

    /// Begins to fetch `piece` from `source`, or what others leave of it.
    fn begin(&mut self, source: usize, piece: u32) {
        let store = &self.ground.store;
        // It may have come in by another way, or by the last breath of a fetch that was cancelled.
        if store.has(piece) {
            return self.complete(piece);
        }
        let whole = &store.manifest().pieces()[piece as usize];
        let work =
            self.works.entry(piece).or_insert_with(|| Arc::new(Work::new(whole, &store.missing(piece))));
        let from_end = self.active.values().filter(|active| active.piece == piece);
        let balance: i32 = from_end.map(|active| if active.from_end { -1 } else { 1 }).sum();
        let known = &mut self.sources.all[source];
        known.busy += 1;
        self.fetches += 1;
        let fetching = Fetching {
            id: self.fetches,
            piece,
            peer: known.peer.clone(),
            work: work.clone(),
            from_end: balance > 0,
            ground: self.ground.clone(),
            kept: Kept { fetch: Arc::default(), peer: known.kept.peer.clone() },
        };
        let (id, from_end, kept) = (fetching.id, fetching.from_end, fetching.kept.clone());
        let sender = self.sender.clone();
        let task = self.tasks.spawn(async move {
            let end = fetching.run().await;
            let _ = sender.send(PeerEvent::Ended(id, end)).await;
        });
        let began = Instant::now();
        self.active.insert(id, Active { source, piece, from_end, began, kept, task });
        if let Some(seed) = self.seed() {
            seed.comes(piece, true);
        }
    }

    /// How many fetches run.
    pub(crate) fn running(&self) -> u32 {
        u32::try_from(self.active.len()).unwrap_or(u32::MAX)
    }

    /// How many of them fetch `piece`.
    fn fetches_of(&self, piece: u32) -> usize {
        self.active.values().filter(|active| active.piece == piece).count()
    }

    /// True when `piece` is being fetched from `source`.
    fn is_fetched_from(&self, piece: u32, source: usize) -> bool {
        self.active.values().any(|active| active.piece == piece && active.source == source)
    }

    /// Begins `pick` where that is possible. Else the picker receives its end, which counts as cancelled.
    pub(crate) fn accept(&mut self, pick: Fetch, slots: &[Slot]) {
        let offered = slots.iter().any(|slot| slot.peer == pick.peer);
        let Some(source) = self.sources.find(pick.peer).filter(|_| offered) else { return };
        let known = &self.sources.all[source];
        let has = known.has.get(pick.piece as usize).copied().unwrap_or(false);
        let free = known.free(self.requests_per_peer) > 0 && self.running() < self.requests;
        if has && free && self.left.contains(&pick.piece) && !self.is_fetched_from(pick.piece, source) {
            self.begin(source, pick.piece);
        } else {
            let (peer, piece, fault) = (pick.peer, pick.piece, Some(Fault::Cancelled));
            self.events.push(Event::Done(Fetched { peer, piece, bytes: 0, took: Duration::ZERO, fault }));
        }
    }

    /// One fetch for each peer in turn, until nobody has a free slot or there is nothing to do.
    pub(crate) fn in_order(&mut self, slots: &[Slot]) {
        let mut done = HashSet::new();
        while done.len() < slots.len() {
            for (number, slot) in slots.iter().enumerate() {
                let next = self.next_for(slot);
                if next.is_none() {
                    done.insert(number);
                }
                if let Some((source, piece)) = next {
                    self.begin(source, piece);
                }
            }
        }
    }

    /// The first piece that nobody fetches, or, when all are being fetched, the first that only one does.
    pub(crate) fn next_for(&self, slot: &Slot) -> Option<(usize, u32)> {
        let source = self.sources.find(slot.peer)?;
        let known = &self.sources.all[source];
        if known.free(self.requests_per_peer) == 0 || self.running() >= self.requests {
            return None;
        }
        let has = |piece: &&u32| known.has.get(**piece as usize) == Some(&true) && self.left.contains(piece);
        let open = || self.order.iter().filter(has);
        let new = open().find(|piece| self.fetches_of(**piece) == 0);
        let shared =
            || open().find(|piece| self.fetches_of(**piece) == 1 && !self.is_fetched_from(**piece, source));
        new.or_else(shared).map(|piece| (source, *piece))
    }
}
