//! What is seeded.
//!
//! Invariant: a root names the store of the manifest with that root, and the text of that manifest.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use axum::body::Bytes;
use tightwad_core::sync;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::disk::digest::Digest;
use crate::disk::store::Store;

/// Peers that are remembered for a model, at most.
const KNOWN: usize = 64;
/// How long a peer is remembered after it was last heard of.
const REMEMBERED: Duration = Duration::from_secs(180);

/// The models that this machine seeds; shared by its servers and its pulls.
pub struct Seeds {
    name: String,
    seeds: RwLock<HashMap<Digest, Arc<Seed>>>,
}

/// One seeded model.
pub(crate) struct Seed {
    pub(crate) store: Arc<Store>,
    pub(crate) manifest: Bytes,
    changed: watch::Sender<()>,
    coming: Mutex<Coming>,
    known: Mutex<HashMap<String, Instant>>,
}

/// What is being fetched of a model, and how often a fetch began.
#[derive(Default)]
struct Coming {
    pieces: BTreeSet<u32>,
    begun: u64,
}

impl Default for Seeds {
    fn default() -> Self {
        Self { name: format!("{:016x}", fastrand::u64(..)), seeds: RwLock::default() }
    }
}

impl Seeds {
    /// Seeds nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Random; by it this machine knows its own seeder.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Seeds `store` too; what is there of it, whenever it is there. False when its model is seeded already:
    /// then nothing changes.
    pub fn add(&self, store: Arc<Store>) -> bool {
        let manifest: Bytes = store.manifest().to_json().into();
        let root = store.manifest().root();
        let mut seeds = sync::write(&self.seeds);
        if seeds.contains_key(&root) {
            return false;
        }
        let (changed, coming, known) = (watch::Sender::new(()), Mutex::default(), Mutex::default());
        seeds.insert(root, Arc::new(Seed { store, manifest, changed, coming, known }));
        true
    }

    /// No longer seeds the model `root`; uploads that run end by themselves.
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

    /// Remembers that `peer` (`http://ADDRESS:PORT`) seeds the model `root` too, and tells others.
    pub fn know(&self, root: Digest, peer: &str) {
        if let Some(seed) = self.get(root) {
            seed.know(peer);
        }
    }

    pub(crate) fn get(&self, root: Digest) -> Option<Arc<Seed>> {
        sync::read(&self.seeds).get(&root).cloned()
    }
}

impl Seed {
    /// Wakes those who wait for news.
    pub(crate) fn changed(&self) {
        self.changed.send_replace(());
    }

    /// `piece` is being fetched from now on, or no more.
    pub(crate) fn comes(&self, piece: u32, comes: bool) {
        let mut coming = sync::lock(&self.coming);
        if !comes {
            coming.pieces.remove(&piece);
        } else if coming.pieces.insert(piece) {
            coming.begun += 1;
            drop(coming);
            self.changed();
        }
    }

    /// What is being fetched.
    pub(crate) fn coming(&self) -> Vec<u32> {
        sync::lock(&self.coming).pieces.iter().copied().collect()
    }

    /// Names what is told of it: grows when a piece comes, or begins to.
    pub(crate) fn version(&self) -> u64 {
        self.store.version() + sync::lock(&self.coming).begun
    }

    pub(crate) fn news(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Remembers `peer`; where there are too many, the one that was not heard of for longest is forgotten.
    pub(crate) fn know(&self, peer: &str) {
        let mut known = sync::lock(&self.known);
        known.insert(peer.to_owned(), Instant::now());
        if known.len() > KNOWN {
            let oldest = known.iter().min_by_key(|(_, heard)| **heard).map(|(peer, _)| peer.clone());
            if let Some(oldest) = oldest {
                known.remove(&oldest);
            }
        }
    }

    /// Who else has it, except `asker`. Addresses of this machine's inside make sense only there (`inside`).
    pub(crate) fn others(&self, asker: Option<&str>, inside: bool) -> Vec<String> {
        let mut known = sync::lock(&self.known);
        known.retain(|_, heard| heard.elapsed() < REMEMBERED);
        let hidden =
            |peer: &str| !inside && (peer.starts_with("http://127.") || peer.starts_with("http://[::1]"));
        known.keys().filter(|peer| Some(peer.as_str()) != asker && !hidden(peer)).cloned().collect()
    }
}
