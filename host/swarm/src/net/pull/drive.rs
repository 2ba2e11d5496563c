//! One pull: a single task that owns the picker and everything it decides about.

use tokio::sync::{mpsc, watch};
use tokio::time::sleep_until;

use crate::net::peer::Peer;
use crate::net::pull::event::{Address, PeerEvent};
use crate::net::pull::fetch::Ground;
use crate::net::pull::limits::{Limits, Seeding};
use crate::net::pull::meter::Meter;
use crate::net::pull::order::Order;
use crate::net::pull::report::{Progress, PullError, Summary, Tally};
use crate::net::pull::scheduler::Scheduler;
use crate::net::pull::sources::{Source, Standing};
use crate::net::pull::transfers::Transfers;
use crate::net::pull::watch::Watcher;
use crate::picker::{Event, Fault, Picker, Task};

/// Events that may wait for the driver.
const EVENTS: usize = 256;
/// Peers of one answer that are looked at.
const LEARNED: usize = 64;

/// One pull.
pub(crate) struct Driver {
    scheduler: Scheduler,
    transfers: Transfers,
    meter: Meter,
    limits: Limits,
    /// How many of the transfers' pieces are urgent.
    urgent: u32,
    inbox: mpsc::Receiver<PeerEvent>,
    found: Option<mpsc::Receiver<Peer>>,
}

impl Driver {
    pub(crate) fn new(
        ground: Ground,
        picker: Box<dyn Picker>,
        order: Order,
        limits: Limits,
        seeding: Option<Seeding>,
        found: Option<mpsc::Receiver<Peer>>,
        progress: watch::Sender<Progress>,
    ) -> Self {
        let (sender, inbox) = mpsc::channel(EVENTS);
        Self {
            scheduler: Scheduler::new(picker, &limits),
            transfers: Transfers::new(ground, order.pieces, &limits, seeding, sender),
            meter: Meter::new(progress, order.progress),
            limits,
            urgent: order.urgent,
            inbox,
            found,
        }
    }

    /// Fetches until nothing is left, or nobody brings it.
    pub(crate) async fn run(mut self) -> Result<Summary, PullError> {
        self.start().await;
        while !self.transfers.left.is_empty() {
            self.scheduler.choose(&mut self.transfers).await;
            self.show();
            // A pick may have been of a piece that came by another way.
            if self.transfers.left.is_empty() {
                break;
            }
            self.hope()?;
            self.wait().await?;
            while self.transfers.tasks.try_join_next().is_some() {}
        }
        self.show();
        Ok(self.summary())
    }

    async fn start(&mut self) {
        let pieces = self.transfers.ground.store.manifest().pieces();
        let task = Task {
            pieces: pieces.iter().map(|piece| piece.length).collect(),
            wanted: self.transfers.order.clone(),
            urgent: self.urgent,
            seed: fastrand::u64(..),
        };
        self.scheduler.start(&task).await;
    }

    /// Waits until something happens, and takes in all that has.
    async fn wait(&mut self) -> Result<(), PullError> {
        let tick = self.meter.next_tick();
        let wake = self.transfers.sources.wakes().map_or(tick, |wakes| wakes.min(tick));
        let found = async {
            match &mut self.found {
                Some(found) => found.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(event) = self.inbox.recv() => self.hear(event)?,
            peer = found => match peer {
                Some(peer) => self.add(peer, false),
                None => self.found = None,
            },
            () = sleep_until(wake) => {}
        }
        for _ in 0..EVENTS {
            let Ok(event) = self.inbox.try_recv() else { break };
            self.hear(event)?;
        }
        Ok(())
    }

    /// Watches `peer` too, unless it is being watched, or is known to be of no use.
    pub(crate) fn add(&mut self, peer: Peer, given: bool) {
        let manifest = self.transfers.ground.store.manifest().clone();
        let Some(source) = self.transfers.sources.add(peer.clone(), given, manifest.pieces().len()) else {
            return;
        };
        let given = self.transfers.sources.all[source].given;
        let watcher = Watcher {
            source,
            peer,
            given,
            client: self.transfers.ground.client.clone(),
            manifest,
            port: self.transfers.seeding.as_ref().and_then(|seeding| seeding.port),
            events: self.transfers.sender.clone(),
        };
        self.transfers.sources.all[source].watcher = Some(self.transfers.tasks.spawn(watcher.run()));
    }

    /// Fails when nothing has come for too long, or can come.
    fn hope(&mut self) -> Result<(), PullError> {
        let transfers = &self.transfers;
        let silence = self.meter.silence(&transfers.ground.tally);
        let hope = transfers.sources.hope() || self.found.is_some() || transfers.running() > 0;
        if hope && silence < self.limits.give_up {
            return Ok(());
        }
        let store = &transfers.ground.store;
        Err(PullError::Nobody {
            name: store.manifest().name().to_owned(),
            pieces: transfers.left.len(),
            bytes: transfers.left.iter().map(|piece| store.bytes_missing(*piece)).sum(),
            why: transfers.sources.story(),
        })
    }

    fn show(&mut self) {
        let transfers = &self.transfers;
        let (left, peers) = (transfers.left.len(), transfers.sources.there());
        self.meter.show(&transfers.ground.tally, left, peers, transfers.running());
    }

    /// Fails only when the file cannot be written.
    pub(crate) fn hear(&mut self, event: PeerEvent) -> Result<(), PullError> {
        match event {
            PeerEvent::Have { source, address, seeder, pieces, coming } => {
                let own = self.transfers.seeding.as_ref().map(|seeding| seeding.seeds.name());
                if own.is_some() && own == seeder.as_deref() {
                    self.transfers.shut(source, Standing::Shut, "that is this machine");
                } else if self.transfers.sources.all[source].standing == Standing::Watched {
                    self.has(source, address, [&pieces, &coming]);
                }
            }
            PeerEvent::Silent { source, why, gone, over } => {
                tracing::debug!(%why, gone, "a peer is silent");
                self.transfers.sources.all[source].why = Some(why);
                if gone {
                    self.transfers.leave(source, Fault::Lost);
                }
                if over && self.transfers.sources.all[source].standing == Standing::Watched {
                    self.transfers.sources.all[source].standing = Standing::Gone;
                }
            }
            PeerEvent::Shut { source, why } => self.transfers.shut(source, Standing::Shut, &why),
            PeerEvent::Learned(peers) => {
                for peer in peers.iter().take(LEARNED).filter_map(|peer| Peer::told(peer)) {
                    self.add(peer, false);
                }
            }
            PeerEvent::Ended(fetch, end) => return self.transfers.ended(fetch, end),
        }
        Ok(())
    }

    fn has(&mut self, source: usize, address: Address, [runs, coming]: [&[(u32, u32)]; 2]) {
        if self.transfers.sources.all[source].id.is_none() {
            if self.transfers.sources.is_double(source, address) {
                return self.transfers.shut(source, Standing::Shut, "it is known by another address already");
            }
            self.transfers.sources.all[source].address = address;
            let id = self.transfers.sources.join(source);
            self.transfers.events.push(Event::Joined(id));
        }
        self.tell_others(source);
        let known = &mut self.transfers.sources.all[source];
        let Some(id) = known.id else { return };
        let new = noted(&mut known.has, runs);
        if !new.is_empty() {
            self.transfers.events.push(Event::Has(id, new));
        }
        let mut begun = noted(&mut known.coming, coming);
        begun.retain(|piece| !known.has[*piece as usize]);
        if !begun.is_empty() {
            self.transfers.events.push(Event::Coming(id, begun));
        }
    }

    /// Those who pull from this machine should know whom it pulls from.
    fn tell_others(&self, source: usize) {
        let Source { peer, address, .. } = &self.transfers.sources.all[source];
        if let (Some(seeding), Peer::Seeder(url), Some(address)) = (&self.transfers.seeding, peer, address)
            && url.path() == "/"
        {
            seeding.seeds.know(self.transfers.ground.root, &format!("http://{address}"));
        }
    }

    fn summary(&mut self) -> Summary {
        let tally = &self.transfers.ground.tally;
        let (came, kept) = (Tally::of(&tally.came), Tally::of(&tally.kept));
        let all = self.transfers.sources.all.iter();
        let banned = all.clone().filter(|source| source.standing == Standing::Banned);
        let from = all.map(|source| (source.peer.clone(), Tally::of(&source.kept.peer)));
        Summary {
            bytes: kept,
            from: from.filter(|(_, bytes)| *bytes > 0).collect(),
            wasted: came.saturating_sub(kept),
            corrupt: Tally::of(&tally.corrupt),
            duplicate: Tally::of(&tally.duplicate),
            banned: banned.map(|source| source.peer.clone()).collect(),
            picker_failed: self.scheduler.failed.take(),
            helped: self.scheduler.helped,
            took: self.scheduler.elapsed(),
        }
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
