//! Fixtures: models, stores, seeders and pulls.

use std::future::pending;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tightwad_net::door::Encryption;
use tightwad_netlab::Proxy;
use tightwad_swarm::disk::{Manifest, Store, StoreError};
use tightwad_swarm::net::{
    Client, Peer, Progress, Pull, PullError, PullLimits, PullSummary, SeedState, Seeds, serve,
};
use tightwad_swarm::{Picker, disk};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::pickers::InOrder;

pub(crate) const MIB: u64 = 1 << 20;

/// A complete model, and the folder for the pulls of a test.
pub(crate) struct Lab {
    pub(crate) dir: TempDir,
    pub(crate) file: PathBuf,
    pub(crate) bytes: Vec<u8>,
    pub(crate) manifest: Arc<Manifest>,
}

impl Lab {
    /// A model of random bytes. Its size is not a multiple of a block or piece.
    pub(crate) fn new(mib: u64, largest_piece: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("model.bin");
        let mut bytes = vec![0; usize::try_from(mib * MIB - 12_345).unwrap()];
        fastrand::Rng::with_seed(mib ^ largest_piece).fill(&mut bytes);
        std::fs::write(&file, &bytes).unwrap();
        let manifest = Manifest::build(&file, largest_piece, Some("model"), &|_| {}).unwrap();
        Self { dir, file, bytes, manifest: Arc::new(manifest) }
    }

    pub(crate) fn pieces(&self) -> u32 {
        u32::try_from(self.manifest.pieces().len()).unwrap()
    }

    pub(crate) fn complete(&self) -> Arc<Store> {
        Arc::new(Store::open_complete(&self.file, self.manifest.clone()).unwrap())
    }

    /// An empty store for a machine of that name.
    pub(crate) fn empty(&self, machine: &str) -> Arc<Store> {
        Arc::new(Store::resume(&self.path(machine), self.manifest.clone(), &|_| ()).unwrap())
    }

    /// Opens the machine's store again, as soon as its last pull has released it.
    pub(crate) async fn reopen(&self, machine: &str) -> Arc<Store> {
        loop {
            match Store::resume(&self.path(machine), self.manifest.clone(), &|_| ()) {
                Err(StoreError::Busy(_)) => tokio::time::sleep(Duration::from_millis(20)).await,
                store => return Arc::new(store.unwrap()),
            }
        }
    }

    pub(crate) fn path(&self, machine: &str) -> PathBuf {
        self.dir.path().join(format!("{machine}.bin"))
    }

    /// A store that has `pieces`.
    pub(crate) fn partial(&self, machine: &str, pieces: impl IntoIterator<Item = u32>) -> Arc<Store> {
        let store = self.empty(machine);
        for piece in pieces {
            self.fill(&store, piece);
        }
        store
    }

    /// Writes `piece` to `store`.
    pub(crate) fn fill(&self, store: &Store, piece: u32) {
        let parent = &self.manifest.pieces()[piece as usize];
        let mut at = usize::try_from(parent.offset).unwrap();
        for (block, disk::Block { length, .. }) in (0..).zip(&parent.blocks) {
            let end = at + *length as usize;
            store.write(piece, block, &self.bytes[at..end]).unwrap();
            at = end;
        }
    }

    pub(crate) fn is_same(&self, path: &Path) -> bool {
        std::fs::read(path).unwrap() == self.bytes
    }
}

pub(crate) fn seeds(store: Arc<Store>) -> Arc<Seeds> {
    let seeds = Arc::new(Seeds::new());
    assert!(seeds.add(store));
    seeds
}

/// Starts a seeder; returns its address.
pub(crate) async fn seeder(state: SeedState) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(listener, state, Encryption::default(), pending()));
    address
}

pub(crate) async fn seeder_of(store: Arc<Store>) -> SocketAddr {
    seeder(SeedState::new(seeds(store))).await
}

/// Starts a seeder of `store` behind a proxy.
pub(crate) async fn link_to(store: Arc<Store>) -> Proxy {
    let seeder = seeder_of(store).await;
    Proxy::start(SocketAddr::from(([127, 0, 0, 1], 0)), seeder).await.unwrap()
}

pub(crate) fn peer(address: SocketAddr) -> Peer {
    Peer::seeder(&address.to_string()).unwrap()
}

pub(crate) fn client() -> Client {
    Client::new(None, &[], None).unwrap()
}

/// A pull with the picker [`InOrder`].
pub(crate) fn pull(store: Arc<Store>, from: &[SocketAddr]) -> Pull {
    pull_with(store, from, Box::new(InOrder::default()))
}

pub(crate) fn pull_with(store: Arc<Store>, from: &[SocketAddr], picker: Box<dyn Picker>) -> Pull {
    Pull::new(client(), store, picker, from.iter().copied().map(peer).collect())
}

pub(crate) fn short_timeouts(stall_ms: u64, timeout_ms: u64) -> PullLimits {
    let (stall_timeout, timeout) = (Duration::from_millis(stall_ms), Duration::from_millis(timeout_ms));
    PullLimits { stall_timeout, timeout, ..PullLimits::default() }
}

pub(crate) async fn run(pull: Pull) -> Result<PullSummary, PullError> {
    pull.run(watch::Sender::new(Progress::default())).await
}
