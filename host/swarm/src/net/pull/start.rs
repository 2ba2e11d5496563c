//! A pull before it begins, and what is done at its end.

use std::sync::Arc;

use tokio::sync::{mpsc, watch as channel};

use crate::disk::error::StoreError;
use crate::disk::store::Store;
use crate::net::client::Client;
use crate::net::peer::Peer;
use crate::net::pull::drive::Driver;
use crate::net::pull::fetch::Ground;
use crate::net::pull::limits::{Limits, Seeding};
use crate::net::pull::order::Order;
use crate::net::pull::report::{Progress, PullError, Summary, Tally};
use crate::net::seed::seeds::Seeds;
use crate::picker::Picker;

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
        let pulled = self.driver(progress)?.run().await;
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

    fn driver(self, progress: channel::Sender<Progress>) -> Result<Driver, PullError> {
        let Self { client, store, picker, peers, found, wanted, urgent, limits, seeding, .. } = self;
        let order = Order::new(&store, wanted, &urgent)?;
        let (root, stall, limit) = (store.manifest().root(), limits.stall, limits.rate.clone());
        let ground = Ground { client, root, store, stall, limit, tally: Tally::default() };
        let mut driver = Driver::new(ground, picker, order, limits, seeding, found, progress);
        for peer in peers {
            driver.add(peer, true);
        }
        Ok(driver)
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
