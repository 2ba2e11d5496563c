//! The pools of a host. A pool that needs memory evicts idle pools.

use std::sync::{Arc, Mutex, Weak};

use async_trait::async_trait;
use tightwad_core::{PoolSpec, WorkerSpec, sync};
use tightwad_modes::PlacementPolicy;
use tokio::sync::watch;

use crate::error::PoolError;
use crate::pool::Pool;
use crate::supervisor::Evictor;

/// All pools of a host.
#[derive(Default)]
pub struct Pools {
    pools: Mutex<Vec<Weak<Pool>>>,
    draining: watch::Sender<bool>,
}

impl Pools {
    /// The pools that exist.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Pool>> {
        let mut pools = sync::lock(&self.pools);
        pools.retain(|pool| pool.strong_count() > 0);
        pools.iter().filter_map(Weak::upgrade).collect()
    }

    /// Creates a pool, and loads it unless the pool loads on demand.
    ///
    /// # Errors
    ///
    /// Returns [`PoolError`] if the file is not a model, or if the pool does not start.
    pub async fn start(
        self: &Arc<Self>,
        spec: PoolSpec,
        plugin: Arc<PlacementPolicy>,
    ) -> Result<Arc<Pool>, PoolError> {
        let pool = Pool::new(spec, plugin, self.clone(), self.draining.subscribe()).await?;
        sync::lock(&self.pools).push(Arc::downgrade(&pool));
        pool.load_at_startup().await?;
        Ok(pool)
    }

    /// Lets the running processes finish their requests, and starts no process any more. Call before the host ends.
    pub fn drain(&self) {
        self.draining.send_replace(true);
    }

    /// The pool with exactly this configuration.
    #[must_use]
    pub fn find(&self, spec: &PoolSpec) -> Option<Arc<Pool>> {
        self.all().into_iter().find(|pool| pool.spec() == spec)
    }
}

#[async_trait]
impl Evictor for Pools {
    async fn evict_for(&self, spec: &PoolSpec) -> bool {
        let is_candidate = |pool: &Arc<Pool>| {
            let candidate = pool.spec();
            let is_shared = |worker: &WorkerSpec| spec.workers.iter().any(|other| other.url == worker.url);
            candidate != spec
                && !candidate.keep_loaded
                && pool.is_loaded()
                && candidate.workers.iter().any(is_shared)
        };
        let pools = self.all();
        let Some(pool) = pools.iter().filter(|pool| is_candidate(pool)).max_by_key(|pool| pool.idle_time())
        else {
            return false;
        };
        tracing::info!(model = pool.spec().name, "evicted to free memory for {}", spec.name);
        pool.unload().await;
        true
    }
}
