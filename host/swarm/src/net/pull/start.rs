//! The setup of a pull, and the cleanup at its end.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use crate::disk::error::StoreError;
use crate::disk::store::Store;
use crate::net::client::Client;
use crate::net::peer::Peer;
use crate::net::pull::driver::Driver;
use crate::net::pull::fetch::PullContext;
use crate::net::pull::limits::{PullLimits, Seeding};
use crate::net::pull::order::PieceOrder;
use crate::net::pull::peer_table::PeerOrigin;
use crate::net::pull::report::{Progress, PullCounters, PullError, PullSummary};
use crate::net::seed::seeds::Seeds;
use crate::picker::Picker;

/// A pull that has not started.
pub struct Pull {
    /// The HTTP client.
    pub client: Client,
    /// The store to fill.
    pub store: Arc<Store>,
    /// Chooses the next pieces and their peers.
    pub picker: Box<dyn Picker>,
    /// The peers that the user named.
    pub peers: Vec<Peer>,
    /// Peers that discovery finds during the pull.
    pub discovered: Option<mpsc::Receiver<Peer>>,
    /// The wanted pieces. `None`: all pieces.
    pub wanted: Option<Vec<u32>>,
    /// The pieces that are needed before the others, in this order.
    pub urgent: Vec<u32>,
    /// The limits and timeouts.
    pub limits: PullLimits,
    /// Seeds the complete pieces during the pull.
    pub seeding: Option<Seeding>,
    /// Whether the complete file replaces an older file of the same name.
    pub replace: bool,
}

impl Pull {
    /// A pull that fills `store` from `peers`, with default limits.
    #[must_use]
    pub fn new(client: Client, store: Arc<Store>, picker: Box<dyn Picker>, peers: Vec<Peer>) -> Self {
        Self {
            client,
            store,
            picker,
            peers,
            discovered: None,
            wanted: None,
            urgent: Vec::new(),
            limits: PullLimits::default(),
            seeding: None,
            replace: false,
        }
    }

    /// Fetches the wanted pieces that are missing. If the file is complete then, finishes the store. The
    /// caller may drop the future at any time: the store keeps all fetched blocks.
    ///
    /// # Errors
    ///
    /// When the file cannot be written, or when no peer sends the missing pieces. The store keeps all fetched
    /// blocks.
    pub async fn run(self, progress: watch::Sender<Progress>) -> Result<PullSummary, PullError> {
        let (store, replace) = (self.store.clone(), self.replace);
        let mut cleanup = Cleanup { store: store.clone(), synced: false, temporary_seed: None };
        if let Some(seeding) = &self.seeding
            && seeding.seeds.add(store.clone())
        {
            cleanup.temporary_seed = Some(seeding.seeds.clone());
        }
        let driver = self.driver(progress)?;
        let missing = driver.missing_bytes();
        run_blocking(&store, move |store| store.check_free_space(missing)).await?;
        let pulled = driver.run().await;
        let finish = pulled.is_ok() && store.is_complete();
        let ended =
            run_blocking(&store, move |store| if finish { store.finish(replace) } else { store.sync() })
                .await;
        cleanup.synced = true;
        let summary = pulled?;
        ended?;
        // After a successful pull, the store remains in the registry.
        cleanup.temporary_seed = None;
        Ok(summary)
    }

    fn driver(self, progress: watch::Sender<Progress>) -> Result<Driver, PullError> {
        let Self { client, store, picker, peers, discovered, wanted, urgent, limits, seeding, .. } = self;
        let order = PieceOrder::new(&store, wanted, &urgent)?;
        let context = PullContext {
            client,
            root: store.manifest().root(),
            store,
            stall_timeout: limits.stall_timeout,
            rate_limit: limits.rate_limit.clone(),
            counters: PullCounters::default(),
        };
        let mut driver = Driver::new(context, picker, order, limits, seeding, discovered, progress);
        for peer in peers {
            driver.add_peer(peer, PeerOrigin::User);
        }
        Ok(driver)
    }
}

/// Runs `operation` on a thread that may block.
async fn run_blocking(
    store: &Arc<Store>,
    operation: impl FnOnce(&Store) -> Result<(), StoreError> + Send + 'static,
) -> Result<(), PullError> {
    let store = store.clone();
    let result = tokio::task::spawn_blocking(move || operation(&store)).await;
    result.map_err(|error| PullError::Task(error.to_string()))?.map_err(PullError::Store)
}

/// The cleanup of a pull that fails or is dropped: syncs the store and removes its temporary seed.
struct Cleanup {
    store: Arc<Store>,
    synced: bool,
    /// The registry that has the store only for this pull.
    temporary_seed: Option<Arc<Seeds>>,
}

impl Drop for Cleanup {
    fn drop(&mut self) {
        if let Some(seeds) = self.temporary_seed.take() {
            seeds.remove(self.store.manifest().root());
        }
        if self.synced {
            return;
        }
        let store = self.store.clone();
        let sync = move || {
            if let Err(error) = store.sync() {
                tracing::warn!(%error, "the last fetched blocks cannot be synced");
            }
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(sync)),
            Err(_) => sync(),
        }
    }
}
