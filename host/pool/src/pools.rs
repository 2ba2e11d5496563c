//! The pools of a host: when one needs room, others that nobody uses go.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use tightwad_core::PoolSpec;

use crate::pooling::Pooling;

/// All pools of a host.
#[derive(Default)]
pub struct Pools(Mutex<Vec<Weak<Pooling>>>);

impl Pools {
    /// The pools that are there.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Pooling>> {
        let mut pools = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pools.retain(|pool| pool.strong_count() > 0);
        pools.iter().filter_map(Weak::upgrade).collect()
    }

    pub(crate) fn add(&self, pool: &Arc<Pooling>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(pool));
    }

    /// The pool that was made of the same words.
    #[must_use]
    pub fn find(&self, spec: &PoolSpec) -> Option<Arc<Pooling>> {
        self.all().into_iter().find(|pool| pool.spec() == spec)
    }

    /// Unloads the pool that was not used for the longest time, shares a machine with `spec`, and is not
    /// pinned, once its requests are finished; false: there is none.
    pub(crate) async fn make_room(&self, spec: &PoolSpec) -> bool {
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
