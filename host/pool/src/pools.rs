//! The pools of a host: when one needs room, others that nobody uses go.

use std::sync::{Arc, Mutex, Weak};

use async_trait::async_trait;
use tightwad_core::{PoolSpec, sync};
use tightwad_modes::PlacementPlugin;

use crate::error::PoolError;
use crate::pooling::Pooling;
use crate::supervisor::MakeRoom;

/// All pools of a host.
#[derive(Default)]
pub struct Pools(Mutex<Vec<Weak<Pooling>>>);

impl Pools {
    /// The pools that are there.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Pooling>> {
        let mut pools = sync::lock(&self.0);
        pools.retain(|pool| pool.strong_count() > 0);
        pools.iter().filter_map(Weak::upgrade).collect()
    }

    /// Makes a pool, and loads it unless the script says that the first request does.
    ///
    /// # Errors
    ///
    /// [`PoolError`], where the file is not a model, or the pool does not start.
    pub async fn start(
        self: &Arc<Self>,
        spec: PoolSpec,
        plugin: Arc<PlacementPlugin>,
    ) -> Result<Arc<Pooling>, PoolError> {
        let pool = Pooling::new(spec, plugin, self.clone()).await?;
        sync::lock(&self.0).push(Arc::downgrade(&pool));
        pool.begin().await?;
        Ok(pool)
    }

    /// The pool that was made of the same words.
    #[must_use]
    pub fn find(&self, spec: &PoolSpec) -> Option<Arc<Pooling>> {
        self.all().into_iter().find(|pool| pool.spec() == spec)
    }
}

#[async_trait]
impl MakeRoom for Pools {
    async fn make_room(&self, spec: &PoolSpec) -> bool {
        let in_the_way = |pool: &Arc<Pooling>| {
            let own = pool.spec();
            let url =
                |worker: &tightwad_core::WorkerSpec| spec.workers.iter().any(|other| other.url == worker.url);
            own != spec && !own.pinned && pool.is_loaded() && own.workers.iter().any(url)
        };
        let pools = self.all();
        let Some(pool) = pools.iter().filter(|pool| in_the_way(pool)).max_by_key(|pool| pool.idle()) else {
            return false;
        };
        tracing::info!(model = pool.spec().name, "makes room for {}", spec.name);
        pool.unload().await;
        true
    }
}
