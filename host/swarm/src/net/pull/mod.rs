//! Filling a store from many peers.

use crate::net::pull::report::Progress;
use crate::net::pull::report::PullError;
use crate::net::pull::report::Summary;

pub(crate) mod choose;
pub(crate) mod drive;
pub(crate) mod fetch;
pub(crate) mod hear;
pub(crate) mod report;
pub(crate) mod sources;
pub(crate) mod watch;
pub(crate) mod work;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch as channel};

use crate::disk::error::StoreError;
use crate::disk::store::Store;
use crate::net::client::Client;
use crate::net::limit::RateLimit;
use crate::net::peer::Peer;
use crate::net::pull::drive::Driver;
use crate::net::seed::seeds::Seeds;
use crate::picker::Picker;

/// What a pull may take, and how patient it is.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Fetches from one peer at the same time.
    pub requests_a_peer: u32,
    /// Fetches at the same time.
    pub requests: u32,
    /// How long nothing may come of a fetch.
    pub stall: Duration,
    /// How long nothing may come of anybody.
    pub give_up: Duration,
    /// How long the picker may choose nothing while nothing is being fetched and something could be.
    pub patience: Duration,
    /// Bytes a second.
    pub rate: Option<Arc<RateLimit>>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            requests_a_peer: 4,
            requests: 32,
            stall: Duration::from_secs(10),
            give_up: Duration::from_secs(60),
            patience: Duration::from_secs(3),
            rate: None,
        }
    }
}

/// Where this machine seeds what it pulls.
#[derive(Clone)]
pub struct Seeding {
    /// What it seeds.
    pub seeds: Arc<Seeds>,
    /// The port of its server, when others can reach it.
    pub port: Option<u16>,
}

/// A pull that has not begun.
pub struct Pull {
    /// Asks the peers.
    pub client: Client,
    /// What is filled.
    pub store: Arc<Store>,
    /// Decides what comes next, and from whom.
    pub picker: Box<dyn Picker>,
    /// Who may have the model.
    pub peers: Vec<Peer>,
    /// Peers that are found while the pull runs.
    pub found: Option<mpsc::Receiver<Peer>>,
    /// The pieces that are wanted; all of them when `None`.
    pub wanted: Option<Vec<u32>>,
    /// The pieces that are needed before the others, in this order.
    pub urgent: Vec<u32>,
    /// What the pull may take.
    pub limits: Limits,
    /// Seeds what is there already while the rest comes.
    pub seeding: Option<Seeding>,
    /// An older file of the same name is replaced at the end.
    pub replace: bool,
}

impl Pull {
    /// Fills `store` from `peers`.
    #[must_use]
    pub fn new(client: Client, store: Arc<Store>, picker: Box<dyn Picker>, peers: Vec<Peer>) -> Self {
        Self {
            client,
            store,
            picker,
            peers,
            found: None,
            wanted: None,
            urgent: Vec::new(),
            limits: Limits::default(),
            seeding: None,
            replace: false,
        }
    }

    /// Fetches what is wanted and missing. When nothing of the file is missing then, it is finished: it has its
    /// name. May be dropped at any time: what was fetched is kept.
    ///
    /// # Errors
    ///
    /// When the file cannot be written, or when nobody brings what is missing; what was fetched is kept.
    pub async fn run(self, progress: channel::Sender<Progress>) -> Result<Summary, PullError> {
        let (store, replace) = (self.store.clone(), self.replace);
        let mut end = Ending { store: store.clone(), synced: false, seeded: None };
        if let Some(seeding) = &self.seeding
            && seeding.seeds.add(store.clone())
        {
            end.seeded = Some(seeding.seeds.clone());
        }
        let pulled = Driver::new(self, progress)?.run().await;
        let finish = pulled.is_ok() && store.is_whole();
        let ended =
            blocking(&store, move |store| if finish { store.finish(replace) } else { store.sync() }).await;
        end.synced = true;
        let summary = pulled?;
        ended?;
        // What is there goes on being seeded.
        end.seeded = None;
        Ok(summary)
    }
}

/// Does `what` where it may take its time.
async fn blocking(
    store: &Arc<Store>,
    what: impl FnOnce(&Store) -> Result<(), StoreError> + Send + 'static,
) -> Result<(), PullError> {
    let store = store.clone();
    let done = tokio::task::spawn_blocking(move || what(&store)).await;
    done.map_err(|error| PullError::Task(error.to_string()))?.map_err(PullError::Store)
}

/// What happens when a pull is dropped or fails: what is there is made safe, and the store is let go.
struct Ending {
    store: Arc<Store>,
    synced: bool,
    /// Where the store is registered only for this pull.
    seeded: Option<Arc<Seeds>>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        if let Some(seeds) = self.seeded.take() {
            seeds.remove(self.store.manifest().root());
        }
        if self.synced {
            return;
        }
        let store = self.store.clone();
        let sync = move || {
            if let Err(error) = store.sync() {
                tracing::warn!(%error, "what was fetched last could not be made safe");
            }
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(sync)),
            Err(_) => sync(),
        }
    }
}
