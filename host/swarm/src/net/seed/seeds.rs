//! The registry of seeded models.
//!
//! Invariant: each root maps to the store and the JSON of the manifest with that root.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use axum::body::Bytes;
use tightwad_core::sync;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::disk::digest::Digest;
use crate::disk::store::Store;

/// Largest number of remembered peers of a model.
const MAX_PEERS_PER_MODEL: usize = 64;
/// Time after which a peer that does not announce itself again is forgotten.
const PEER_TTL: Duration = Duration::from_secs(180);

/// The models that this machine seeds. Its servers and pulls share them.
pub struct Seeds {
    id: String,
    seeds: RwLock<HashMap<Digest, Arc<Seed>>>,
}

/// One seeded model.
pub(crate) struct Seed {
    pub(crate) store: Arc<Store>,
    pub(crate) manifest: Bytes,
    changed: watch::Sender<()>,
    in_progress: Mutex<InProgress>,
    /// The time of each peer's last announce, by URL.
    peers: Mutex<HashMap<String, Instant>>,
}

/// The pieces in flight, and the number of pieces that began so far.
#[derive(Default)]
struct InProgress {
    pieces: BTreeSet<u32>,
    started_count: u64,
}

impl Default for Seeds {
    fn default() -> Self {
        Self { id: format!("{:016x}", fastrand::u64(..)), seeds: RwLock::default() }
    }
}

impl Seeds {
    /// An empty registry with a random id.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The random id by which this machine recognizes its own seeder.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Seeds the pieces of `store`, each as soon as it is complete. Returns false and changes nothing when
    /// the model is seeded already.
    pub fn add(&self, store: Arc<Store>) -> bool {
        let manifest: Bytes = store.manifest().to_json().into();
        let root = store.manifest().root();
        let mut seeds = sync::write(&self.seeds);
        if seeds.contains_key(&root) {
            return false;
        }
        let (changed, in_progress, peers) = (watch::Sender::new(()), Mutex::default(), Mutex::default());
        seeds.insert(root, Arc::new(Seed { store, manifest, changed, in_progress, peers }));
        true
    }

    /// Stops seeding the model `root`. Running uploads continue to their end.
    pub fn remove(&self, root: Digest) {
        sync::write(&self.seeds).remove(&root);
    }

    /// The store of the model `root`.
    #[must_use]
    pub fn store(&self, root: Digest) -> Option<Arc<Store>> {
        self.get(root).map(|seed| seed.store.clone())
    }

    /// The stores of all models, by name.
    #[must_use]
    pub fn stores(&self) -> Vec<Arc<Store>> {
        let seeds = sync::read(&self.seeds);
        let mut stores: Vec<_> = seeds.values().map(|seed| seed.store.clone()).collect();
        stores.sort_by(|a, b| {
            let (a, b) = (a.manifest(), b.manifest());
            (a.name(), a.root()).cmp(&(b.name(), b.root()))
        });
        stores
    }

    /// Remembers that `peer` (`http://ADDRESS:PORT`) seeds the model `root`, for peer exchange.
    pub fn add_peer(&self, root: Digest, peer: &str) {
        if let Some(seed) = self.get(root) {
            seed.add_peer(peer);
        }
    }

    pub(crate) fn get(&self, root: Digest) -> Option<Arc<Seed>> {
        sync::read(&self.seeds).get(&root).cloned()
    }
}

impl Seed {
    /// Wakes the long polls.
    pub(crate) fn notify_changed(&self) {
        self.changed.send_replace(());
    }

    /// Records that a fetch of `piece` started.
    pub(crate) fn start_piece(&self, piece: u32) {
        let mut in_progress = sync::lock(&self.in_progress);
        if in_progress.pieces.insert(piece) {
            in_progress.started_count += 1;
            drop(in_progress);
            self.notify_changed();
        }
    }

    /// Records that the last fetch of `piece` ended.
    pub(crate) fn end_piece(&self, piece: u32) {
        sync::lock(&self.in_progress).pieces.remove(&piece);
    }

    /// The pieces in flight.
    pub(crate) fn in_progress(&self) -> Vec<u32> {
        sync::lock(&self.in_progress).pieces.iter().copied().collect()
    }

    /// The version of the reported state. The version grows when a piece completes or starts.
    pub(crate) fn version(&self) -> u64 {
        self.store.version() + sync::lock(&self.in_progress).started_count
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Remembers `peer`. Above the limit, forgets the peer with the oldest announce.
    pub(crate) fn add_peer(&self, peer: &str) {
        let mut peers = sync::lock(&self.peers);
        peers.insert(peer.to_owned(), Instant::now());
        if peers.len() > MAX_PEERS_PER_MODEL {
            let oldest = peers.iter().min_by_key(|(_, announced)| **announced).map(|(peer, _)| peer.clone());
            if let Some(oldest) = oldest {
                peers.remove(&oldest);
            }
        }
    }

    /// The remembered peers without `requester`. Loopback addresses are included only for a requester on this
    /// machine (`is_local`).
    pub(crate) fn peers_for(&self, requester: Option<&str>, is_local: bool) -> Vec<String> {
        let mut peers = sync::lock(&self.peers);
        peers.retain(|_, announced| announced.elapsed() < PEER_TTL);
        let is_hidden =
            |peer: &str| !is_local && (peer.starts_with("http://127.") || peer.starts_with("http://[::1]"));
        peers.keys().filter(|peer| Some(peer.as_str()) != requester && !is_hidden(peer)).cloned().collect()
    }
}
