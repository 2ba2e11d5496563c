//! The registry of seeded models.
//!
//! Invariant: each root maps to the store and the JSON of the manifest with that root.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use axum::body::Bytes;
use tightwad_core::{random_hex, sync};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::disk::digest::Digest;
use crate::disk::store::Store;
use crate::net::peer::MAX_PEERS_PER_ADDRESS;

/// Random bytes of a seeder's id.
const SEEDER_ID_BYTES: usize = 8;
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
    /// The time of each peer's last announce.
    peers: Mutex<HashMap<SocketAddr, KnownPeer>>,
}

/// The pieces in flight, and the number of pieces that began so far.
#[derive(Default)]
struct InProgress {
    pieces: BTreeSet<u32>,
    started_count: u64,
}

impl Default for Seeds {
    fn default() -> Self {
        Self { id: random_hex::<SEEDER_ID_BYTES>(), seeds: RwLock::default() }
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

    /// Remembers that the seeder at `peer` has the model `root`, for peer exchange.
    pub fn add_peer(&self, root: Digest, peer: SocketAddr, encrypted: bool) {
        if let Some(seed) = self.get(root) {
            seed.add_peer(peer, encrypted);
        }
    }

    pub(crate) fn get(&self, root: Digest) -> Option<Arc<Seed>> {
        sync::read(&self.seeds).get(&root).cloned()
    }
}

/// A peer that has announced itself.
#[derive(Debug, Clone, Copy)]
struct KnownPeer {
    announced: Instant,
    encrypted: bool,
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

    /// Remembers `peer`. Above a limit, forgets the oldest announce of the address with the most peers.
    pub(crate) fn add_peer(&self, peer: SocketAddr, encrypted: bool) {
        let mut peers = sync::lock(&self.peers);
        peers.insert(peer, KnownPeer { announced: Instant::now(), encrypted });
        let mut counts: HashMap<IpAddr, usize> = HashMap::new();
        for peer in peers.keys() {
            *counts.entry(peer.ip()).or_default() += 1;
        }
        let (most, count) = counts.into_iter().max_by_key(|(_, count)| *count).unwrap_or((peer.ip(), 1));
        if count > MAX_PEERS_PER_ADDRESS || peers.len() > MAX_PEERS_PER_MODEL {
            let of_address = peers.iter().filter(|(peer, _)| peer.ip() == most);
            let oldest = of_address.min_by_key(|(_, known)| known.announced).map(|(peer, _)| *peer);
            oldest.map(|oldest| peers.remove(&oldest));
        }
    }

    /// The URLs of the remembered peers without `requester`. Loopback addresses are included only for a
    /// requester on this machine (`is_local`).
    pub(crate) fn peers_for(&self, requester: Option<SocketAddr>, is_local: bool) -> Vec<String> {
        let mut peers = sync::lock(&self.peers);
        peers.retain(|_, known| known.announced.elapsed() < PEER_TTL);
        let shown = peers
            .iter()
            .filter(|(peer, _)| Some(**peer) != requester && (is_local || !peer.ip().is_loopback()));
        let url = |(peer, known): (&SocketAddr, &KnownPeer)| {
            let scheme = if known.encrypted { "tightwad" } else { "http" };
            format!("{scheme}://{peer}")
        };
        shown.map(url).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::fixture::Model;
    use crate::disk::manifest::Manifest;

    #[test]
    fn one_address_does_not_push_out_the_others() {
        let folder = tempfile::tempdir().unwrap();
        let path = Model::new("m").save(folder.path(), "m.gguf");
        let manifest = Arc::new(Manifest::build(&path, 1 << 20, None, &|_| ()).unwrap());
        let (seeds, root) = (Seeds::new(), manifest.root());
        seeds.add(Arc::new(Store::open_complete(&path, manifest).unwrap()));
        let honest: SocketAddr = "10.0.0.1:7712".parse().unwrap();
        seeds.add_peer(root, honest, true);
        for port in 1..200 {
            seeds.add_peer(root, SocketAddr::from(([10, 0, 0, 2], port)), false);
        }
        let peers = seeds.get(root).unwrap().peers_for(None, false);
        assert_eq!(peers.len(), 1 + MAX_PEERS_PER_ADDRESS);
        assert!(peers.contains(&format!("tightwad://{honest}")));
        for machine in 3..100 {
            seeds.add_peer(root, SocketAddr::from(([10, 0, 0, machine], 1)), false);
        }
        assert_eq!(seeds.get(root).unwrap().peers_for(None, false).len(), MAX_PEERS_PER_MODEL);
    }
}
