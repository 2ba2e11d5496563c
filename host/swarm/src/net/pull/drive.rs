//! One pull: a single task that owns the picker and everything it decides about.
//!
//! Invariant: `left` holds the wanted pieces that are not complete. A fetch is in `active` from its beginning
//! until its end was told to the picker, exactly once; each one takes a slot of its source. `Left` is told
//! after the end of all fetches of that peer.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

use crate::disk::manifest::Manifest;
use crate::disk::store::Store;
use crate::net::peer::Peer;
use crate::net::pull::fetch::{End, Ground, Kept};
use crate::net::pull::report::{Progress, PullError, Summary, Tally};
use crate::net::pull::sources::{Sources, Standing};
use crate::net::pull::watch::{Address, Watcher};
use crate::net::pull::work::{FetchId, Work};
use crate::net::pull::{Limits, Pull, Seeding};
use crate::picker::{Event, Picker, Task};

/// How often the picker is asked at least, and the rate is measured.
const TICK: Duration = Duration::from_secs(1);
/// What the tasks may tell before they wait.
const WAITING: usize = 256;

/// What the tasks tell the one that decides.
pub(crate) enum Told {
    /// A source is there, has these pieces, and fetches those.
    Have {
        source: usize,
        address: Address,
        seeder: Option<String>,
        pieces: Vec<(u32, u32)>,
        coming: Vec<(u32, u32)>,
    },
    /// A source does not answer; `gone`: for so long that it counts as lost; `over`: nobody asks it again.
    Silent { source: usize, why: String, gone: bool, over: bool },
    /// A source will not serve this machine.
    Shut { source: usize, why: String },
    /// A source knows these.
    Learned(Vec<String>),
    /// A fetch is over.
    Ended(FetchId, End),
}

/// A fetch that runs.
pub(crate) struct Active {
    pub(crate) source: usize,
    pub(crate) piece: u32,
    pub(crate) from_end: bool,
    pub(crate) began: Instant,
    pub(crate) kept: Kept,
    pub(crate) task: AbortHandle,
}

/// One pull.
pub(crate) struct Driver {
    pub(crate) picker: Box<dyn Picker>,
    pub(crate) limits: Limits,
    pub(crate) sources: Sources,
    /// Wanted pieces that were missing in the beginning, those needed first first.
    pub(crate) order: Vec<u32>,
    pub(crate) left: HashSet<u32>,
    /// How many of `order` are needed first.
    urgent: u32,
    /// What the picker was not told yet.
    pub(crate) events: Vec<Event>,
    /// Why the picker failed.
    pub(crate) failed: Option<String>,
    /// Since when the picker has chosen nothing although it could.
    pub(crate) idle_since: Option<Instant>,
    pub(crate) helped: u32,
    pub(crate) began: Instant,
    pub(crate) seeding: Option<Seeding>,
    pub(crate) ground: Arc<Ground>,
    pub(crate) works: HashMap<u32, Arc<Work>>,
    pub(crate) active: HashMap<FetchId, Active>,
    /// How many fetches there were: names the next one.
    pub(crate) fetches: FetchId,
    /// Watchers and fetches; they end with this.
    pub(crate) tasks: JoinSet<()>,
    pub(crate) teller: mpsc::Sender<Told>,
    told: mpsc::Receiver<Told>,
    found: Option<mpsc::Receiver<Peer>>,
    progress: watch::Sender<Progress>,
    shown: Progress,
    /// Bytes that were had before.
    before: u64,
    /// Bytes that had come by the last tick, and when that was.
    measured: (u64, Instant),
    /// Bytes that had come when something came last, and when that was.
    alive: (u64, Instant),
}

impl Driver {
    pub(crate) fn new(pull: Pull, progress: watch::Sender<Progress>) -> Result<Self, PullError> {
        let Pull { client, store, picker, peers, found, wanted, urgent, limits, seeding, .. } = pull;
        let wanted = wanted_of(store.manifest(), wanted)?;
        let shown = shown_at_first(&store, &wanted);
        let order = order_of(&store, wanted, &urgent);
        let urgent = order.iter().take_while(|piece| urgent.contains(piece)).count();
        let (teller, told) = mpsc::channel(WAITING);
        let now = Instant::now();
        let (root, stall, limit) = (store.manifest().root(), limits.stall, limits.rate.clone());
        let ground = Ground { client, root, store, stall, limit, tally: Tally::default() };
        let mut driver = Self {
            picker,
            limits,
            sources: Sources::default(),
            left: order.iter().copied().collect(),
            order,
            urgent: u32::try_from(urgent).unwrap_or(u32::MAX),
            events: Vec::new(),
            failed: None,
            idle_since: None,
            helped: 0,
            began: now,
            seeding,
            ground: Arc::new(ground),
            works: HashMap::new(),
            active: HashMap::new(),
            fetches: 0,
            tasks: JoinSet::new(),
            teller,
            told,
            found,
            progress,
            before: shown.bytes_had,
            shown,
            measured: (0, now),
            alive: (0, now),
        };
        for peer in peers {
            driver.add(peer, true);
        }
        Ok(driver)
    }

    /// Fetches until nothing is left, or nobody brings it.
    pub(crate) async fn run(mut self) -> Result<Summary, PullError> {
        self.start().await;
        while !self.left.is_empty() {
            self.choose().await;
            self.show();
            // A pick may have been of a piece that came by another way.
            if self.left.is_empty() {
                break;
            }
            self.hope()?;
            self.wait().await?;
            while self.tasks.try_join_next().is_some() {}
        }
        self.show();
        Ok(self.summary())
    }

    async fn start(&mut self) {
        let pieces = self.ground.store.manifest().pieces();
        let task = Task {
            pieces: pieces.iter().map(|piece| piece.length).collect(),
            wanted: self.order.clone(),
            urgent: self.urgent,
            seed: fastrand::u64(..),
        };
        if let Err(error) = self.picker.start(&task).await {
            tracing::warn!(%error, "the picker failed at the start: pieces are fetched in order");
            self.failed = Some(error.to_string());
        }
    }

    /// Waits until something happens, and takes in all that has.
    async fn wait(&mut self) -> Result<(), PullError> {
        let tick = self.measured.1 + TICK;
        let wake = self.sources.wakes().map_or(tick, |wakes| wakes.min(tick));
        let found = async {
            match &mut self.found {
                Some(found) => found.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(told) = self.told.recv() => self.hear(told)?,
            peer = found => match peer {
                Some(peer) => self.add(peer, false),
                None => self.found = None,
            },
            () = sleep_until(wake) => {}
        }
        for _ in 0..WAITING {
            let Ok(told) = self.told.try_recv() else { break };
            self.hear(told)?;
        }
        Ok(())
    }

    /// Watches `peer` too, unless it is being watched, or is known to be of no use.
    pub(crate) fn add(&mut self, peer: Peer, given: bool) {
        let manifest = self.ground.store.manifest().clone();
        let Some(source) = self.sources.add(peer.clone(), given, manifest.pieces().len()) else { return };
        let given = self.sources.all[source].given;
        let watcher = Watcher {
            source,
            peer,
            given,
            client: self.ground.client.clone(),
            manifest,
            port: self.seeding.as_ref().and_then(|seeding| seeding.port),
            told: self.teller.clone(),
        };
        self.sources.all[source].watcher = Some(self.tasks.spawn(watcher.run()));
    }

    /// Fails when nothing has come for too long, or can come.
    fn hope(&mut self) -> Result<(), PullError> {
        let came = Tally::of(&self.ground.tally.came);
        if came > self.alive.0 {
            self.alive = (came, Instant::now());
        }
        let hope = self.sources.hope() || self.found.is_some() || self.running() > 0;
        if hope && self.alive.1.elapsed() < self.limits.give_up {
            return Ok(());
        }
        let store = &self.ground.store;
        Err(PullError::Nobody {
            name: store.manifest().name().to_owned(),
            pieces: self.left.len(),
            bytes: self.left.iter().map(|piece| store.bytes_missing(*piece)).sum(),
            why: self.sources.story(),
        })
    }

    fn show(&mut self) {
        let (tally, now) = (&self.ground.tally, Instant::now());
        let (since, came) = (now - self.measured.1, Tally::of(&tally.came));
        if since >= TICK {
            let rate = (came - self.measured.0) as f64 / since.as_secs_f64();
            // Half of what it was: steady to look at, and soon right.
            let before = if self.shown.rate > 0.0 { self.shown.rate } else { rate };
            self.shown.rate = f64::midpoint(before, rate);
            self.measured = (came, now);
        }
        let left = u32::try_from(self.left.len()).unwrap_or(u32::MAX);
        self.shown.pieces_had = self.shown.pieces_wanted.saturating_sub(left);
        self.shown.bytes_had = match left {
            0 => self.shown.bytes_wanted,
            _ => (self.before + Tally::of(&tally.kept)).min(self.shown.bytes_wanted),
        };
        self.shown.peers = u32::try_from(self.sources.there()).unwrap_or(u32::MAX);
        self.shown.fetches = self.running();
        self.progress.send_replace(self.shown.clone());
    }

    fn summary(&mut self) -> Summary {
        let tally = &self.ground.tally;
        let (came, kept) = (Tally::of(&tally.came), Tally::of(&tally.kept));
        let all = self.sources.all.iter();
        let banned = all.clone().filter(|source| source.standing == Standing::Banned);
        let from = all.map(|source| (source.peer.clone(), Tally::of(&source.kept.peer)));
        Summary {
            bytes: kept,
            from: from.filter(|(_, bytes)| *bytes > 0).collect(),
            wasted: came.saturating_sub(kept),
            corrupt: Tally::of(&tally.corrupt),
            duplicate: Tally::of(&tally.duplicate),
            banned: banned.map(|source| source.peer.clone()).collect(),
            picker_failed: self.failed.take(),
            helped: self.helped,
            took: self.began.elapsed(),
        }
    }
}

/// The pieces that are wanted, each once.
fn wanted_of(manifest: &Manifest, wanted: Option<Vec<u32>>) -> Result<Vec<u32>, PullError> {
    let pieces = manifest.pieces().len();
    let all = u32::try_from(pieces).unwrap_or(u32::MAX);
    let Some(mut wanted) = wanted else { return Ok((0..all).collect()) };
    wanted.sort_unstable();
    wanted.dedup();
    match wanted.last() {
        Some(&piece) if piece >= all => {
            Err(PullError::NoPiece { name: manifest.name().to_owned(), pieces, piece })
        }
        _ => Ok(wanted),
    }
}

/// Those of `wanted` that are missing: the urgent ones first, in their order.
fn order_of(store: &Store, wanted: Vec<u32>, urgent: &[u32]) -> Vec<u32> {
    let mut left: HashSet<u32> = wanted.iter().copied().filter(|piece| !store.has(*piece)).collect();
    urgent.iter().copied().chain(wanted).filter(|piece| left.remove(piece)).collect()
}

fn shown_at_first(store: &Store, wanted: &[u32]) -> Progress {
    let mut shown = Progress::default();
    for &piece in wanted {
        let length = store.manifest().pieces()[piece as usize].length;
        shown.bytes_wanted += length;
        shown.bytes_had += length.saturating_sub(store.bytes_missing(piece));
        shown.pieces_wanted += 1;
    }
    shown
}
