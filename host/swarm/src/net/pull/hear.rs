//! What a pull does about what its tasks tell.

use std::sync::Arc;

use tokio::time::Instant;

use crate::net::peer::Peer;
use crate::net::pull::drive::{Active, Driver, Told};
use crate::net::pull::fetch::{End, Fetching, Kept};
use crate::net::pull::report::{PullError, Tally};
use crate::net::pull::sources::{Source, Standing};
use crate::net::pull::watch::Address;
use crate::net::pull::work::{FetchId, Work};
use crate::net::seed::seeds::Seed;
use crate::picker::{Event, Fault, Fetched};

/// Peers of one answer that are looked at.
const LEARNED: usize = 64;

impl Driver {
    /// Fails only when the file cannot be written.
    pub(crate) fn hear(&mut self, told: Told) -> Result<(), PullError> {
        match told {
            Told::Have { source, address, seeder, pieces, coming } => {
                let own = self.seeding.as_ref().map(|seeding| seeding.seeds.name());
                if own.is_some() && own == seeder.as_deref() {
                    self.shut(source, Standing::Shut, "that is this machine");
                } else if self.sources.all[source].standing == Standing::Watched {
                    self.has(source, address, [&pieces, &coming]);
                }
            }
            Told::Silent { source, why, gone, over } => {
                tracing::debug!(%why, gone, "a peer is silent");
                self.sources.all[source].why = Some(why);
                if gone {
                    self.leave(source, Fault::Lost);
                }
                if over && self.sources.all[source].standing == Standing::Watched {
                    self.sources.all[source].standing = Standing::Gone;
                }
            }
            Told::Shut { source, why } => self.shut(source, Standing::Shut, &why),
            Told::Learned(peers) => {
                for peer in peers.iter().take(LEARNED).filter_map(|peer| Peer::told(peer)) {
                    self.add(peer, false);
                }
            }
            Told::Ended(fetch, end) => return self.ended(fetch, end),
        }
        Ok(())
    }

    fn has(&mut self, source: usize, address: Address, [runs, coming]: [&[(u32, u32)]; 2]) {
        if self.sources.all[source].id.is_none() {
            if self.sources.is_double(source, address) {
                return self.shut(source, Standing::Shut, "it is known by another address already");
            }
            self.sources.all[source].address = address;
            let id = self.sources.join(source);
            self.events.push(Event::Joined(id));
        }
        self.tell_others(source);
        let known = &mut self.sources.all[source];
        let Some(id) = known.id else { return };
        let new = noted(&mut known.has, runs);
        if !new.is_empty() {
            self.events.push(Event::Has(id, new));
        }
        let mut begun = noted(&mut known.coming, coming);
        begun.retain(|piece| !known.has[*piece as usize]);
        if !begun.is_empty() {
            self.events.push(Event::Coming(id, begun));
        }
    }

    /// Those who pull from this machine should know whom it pulls from.
    fn tell_others(&self, source: usize) {
        let Source { peer, address, .. } = &self.sources.all[source];
        if let (Some(seeding), Peer::Seeder(url), Some(address)) = (&self.seeding, peer, address)
            && url.path() == "/"
        {
            seeding.seeds.know(self.ground.root, &format!("http://{address}"));
        }
    }

    /// Never asks `source` again.
    fn shut(&mut self, source: usize, standing: Standing, why: &str) {
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
    fn leave(&mut self, source: usize, fault: Fault) {
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

    fn ended(&mut self, fetch: FetchId, end: End) -> Result<(), PullError> {
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
    fn complete(&mut self, piece: u32) {
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
    pub(crate) fn begin(&mut self, source: usize, piece: u32) {
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
        let teller = self.teller.clone();
        let task = self.tasks.spawn(async move {
            let end = fetching.run().await;
            let _ = teller.send(Told::Ended(id, end)).await;
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
    pub(crate) fn fetches_of(&self, piece: u32) -> usize {
        self.active.values().filter(|active| active.piece == piece).count()
    }

    /// True when `piece` is being fetched from `source`.
    pub(crate) fn is_fetched_from(&self, piece: u32, source: usize) -> bool {
        self.active.values().any(|active| active.piece == piece && active.source == source)
    }
}

/// Notes runs of pieces; those that are new.
fn noted(known: &mut [bool], runs: &[(u32, u32)]) -> Vec<u32> {
    let mut new = Vec::new();
    for &(from, to) in runs {
        // Whatever a peer claims, there are no more pieces than these.
        for (piece, has) in known.iter_mut().enumerate().take(to as usize).skip(from as usize) {
            if !std::mem::replace(has, true) {
                new.extend(u32::try_from(piece));
            }
        }
    }
    new
}
