//! Machines with models: folders, files, seeders.

use std::future::pending;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tightwad_netlab::Proxy;
use tightwad_swarm::disk::{Manifest, Store, StoreError};
use tightwad_swarm::net::{
    Client, Limits, Peer, Progress, Pull, PullError, SeedState, Seeds, Summary, serve,
};
use tightwad_swarm::{Picker, disk};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::pickers::Plain;

pub(crate) const MIB: u64 = 1 << 20;

/// A model that exists, and where tests put what they pull.
pub(crate) struct Lab {
    pub(crate) dir: TempDir,
    pub(crate) file: PathBuf,
    pub(crate) bytes: Vec<u8>,
    pub(crate) manifest: Arc<Manifest>,
}

impl Lab {
    /// A model of random bytes: not a multiple of anything.
    pub(crate) fn new(mib: u64, piece: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("model.bin");
        let mut bytes = vec![0; usize::try_from(mib * MIB - 12_345).unwrap()];
        fastrand::Rng::with_seed(mib ^ piece).fill(&mut bytes);
        std::fs::write(&file, &bytes).unwrap();
        let manifest = Manifest::of(&file, piece, Some("model"), &|_| {}).unwrap();
        Self { dir, file, bytes, manifest: Arc::new(manifest) }
    }

    pub(crate) fn pieces(&self) -> u32 {
        u32::try_from(self.manifest.pieces().len()).unwrap()
    }

    pub(crate) fn whole(&self) -> Arc<Store> {
        Arc::new(Store::whole(&self.file, self.manifest.clone()).unwrap())
    }

    /// An empty store on a machine of that name.
    pub(crate) fn empty(&self, machine: &str) -> Arc<Store> {
        Arc::new(Store::resume(&self.path(machine), self.manifest.clone()).unwrap())
    }

    /// The store of that machine, when the pull before has let it go.
    pub(crate) async fn again(&self, machine: &str) -> Arc<Store> {
        loop {
            match Store::resume(&self.path(machine), self.manifest.clone()) {
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
            self.give(&store, piece);
        }
        store
    }

    /// Puts `piece` into `store`.
    pub(crate) fn give(&self, store: &Store, piece: u32) {
        let whole = &self.manifest.pieces()[piece as usize];
        let mut at = usize::try_from(whole.offset).unwrap();
        for (block, disk::Block { length, .. }) in (0..).zip(&whole.blocks) {
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

/// A seeder; where it is.
pub(crate) async fn seeder(state: SeedState) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(listener, state, pending()));
    address
}

pub(crate) async fn seeder_of(store: Arc<Store>) -> SocketAddr {
    seeder(SeedState::new(seeds(store))).await
}

/// A link to a seeder of `store`.
pub(crate) async fn link_to(store: Arc<Store>) -> Proxy {
    let far = seeder_of(store).await;
    Proxy::start(SocketAddr::from(([127, 0, 0, 1], 0)), far).await.unwrap()
}

pub(crate) fn peer(address: SocketAddr) -> Peer {
    Peer::seeder(&address.to_string()).unwrap()
}

pub(crate) fn client() -> Client {
    Client::new(None).unwrap()
}

/// A pull with the plain picker.
pub(crate) fn pull(store: Arc<Store>, from: &[SocketAddr]) -> Pull {
    pull_with(store, from, Box::new(Plain::default()))
}

pub(crate) fn pull_with(store: Arc<Store>, from: &[SocketAddr], picker: Box<dyn Picker>) -> Pull {
    Pull::new(client(), store, picker, from.iter().copied().map(peer).collect())
}

pub(crate) fn impatient(stall_ms: u64, give_up_ms: u64) -> Limits {
    let (stall, give_up) = (Duration::from_millis(stall_ms), Duration::from_millis(give_up_ms));
    Limits { stall, give_up, ..Limits::default() }
}

pub(crate) async fn run(pull: Pull) -> Result<Summary, PullError> {
    pull.run(watch::Sender::new(Progress::default())).await
}
