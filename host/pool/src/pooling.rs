//! Pooling: one model's layers over many machines, through llama.cpp's RPC.
//!
//! A plugin says which layers go where; the model runs in a process of its own, which ends when a worker
//! is lost; a supervisor then starts it anew over what is left, and every stream goes on from its last
//! committed token.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tightwad_core::{BackendError, PoolSpec};
use tightwad_engine::pool::ModelShape;
use tightwad_engine::{ChatTemplate, Weights};
use tightwad_modes::PlacementPlugin;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;

use crate::error::PoolError;
use crate::start::Starter;
use crate::state::{InUse, Phase, Running, Usage};
use crate::supervisor::{MakeRoom, Order, Supervisor};

/// How long a process that broke one call may take to be found dead.
const DOUBT: Duration = Duration::from_secs(3);
/// Orders that may wait.
const ORDERS: usize = 64;

/// A model over a pool of machines.
pub struct Pooling {
    pub(crate) starter: Arc<Starter>,
    pub(crate) weights: Arc<Weights>,
    phase: watch::Receiver<Phase>,
    orders: mpsc::Sender<Order>,
    pub(crate) usage: Arc<Usage>,
    supervisor: AbortHandle,
}

impl Drop for Pooling {
    fn drop(&mut self) {
        self.supervisor.abort();
    }
}

impl Pooling {
    /// Makes a pool that is not loaded yet.
    ///
    /// # Errors
    ///
    /// [`PoolError`], where the file is not a model.
    pub(crate) async fn new(
        spec: PoolSpec,
        plugin: Arc<PlacementPlugin>,
        room: Arc<dyn MakeRoom>,
    ) -> Result<Arc<Self>, PoolError> {
        let path = spec.path.clone();
        let read = move || Ok::<_, PoolError>((ModelShape::read(&path)?, Weights::vocabulary_of(&path)?));
        let (model, weights) = tokio::task::spawn_blocking(read).await??;
        let tools = ChatTemplate::of(&weights).is_ok_and(|template| template.knows_tools());
        let starter = Arc::new(Starter::new(spec, model, plugin, tools)?);
        let (shown, phase) = watch::channel(Phase::Unloaded);
        let (orders, inbox) = mpsc::channel(ORDERS);
        let usage = Arc::new(Usage::new());
        let supervisor = Supervisor {
            starter: starter.clone(),
            room,
            usage: usage.clone(),
            phase: shown,
            orders: inbox,
            generation: 0,
        };
        let supervisor = tokio::spawn(supervisor.run()).abort_handle();
        Ok(Arc::new(Self { starter, weights, phase, orders, usage, supervisor }))
    }

    /// What the script asked for.
    #[must_use]
    pub fn spec(&self) -> &PoolSpec {
        &self.starter.spec
    }

    /// What it is doing.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase.borrow().clone()
    }

    /// True while machines hold it, or begin to.
    #[must_use]
    pub fn is_loaded(&self) -> bool {
        !matches!(*self.phase.borrow(), Phase::Unloaded | Phase::Failed(_))
    }

    /// How long nobody has used it.
    #[must_use]
    pub fn idle(&self) -> Duration {
        self.usage.idle()
    }

    /// Loads it, and waits until it answers.
    ///
    /// # Errors
    ///
    /// Why it does not, after the pool's patience at the latest.
    pub async fn load(&self) -> Result<Arc<Running>, BackendError> {
        self.ready(None).await
    }

    /// Finishes what runs, then unloads it.
    pub async fn unload(&self) {
        let (done, unloaded) = oneshot::channel();
        if self.orders.send(Order::Unload(done)).await.is_ok() {
            // A supervisor that is gone has unloaded it.
            let _ = unloaded.await;
        }
    }

    /// Loads it, unless the first request does. The first start says what is wrong, instead of trying again.
    pub(crate) async fn begin(&self) -> Result<(), PoolError> {
        if self.spec().on_demand {
            return Ok(());
        }
        let mut phase = self.phase.clone();
        self.orders.send(Order::Load).await.map_err(|_| PoolError::NoSupervisor)?;
        let over = |phase: &Phase| matches!(phase, Phase::Ready(_) | Phase::Failed(_) | Phase::Replanning(_));
        let now = phase.wait_for(over).await.map_err(|_| PoolError::NoSupervisor)?.clone();
        match now {
            Phase::Failed(reason) | Phase::Replanning(reason) => {
                Err(PoolError::NotStarted { pool: self.spec().name.clone(), reason })
            }
            _ => Ok(()),
        }
    }

    /// Waits until it answers: not with process `lost`, unless that turns out to live.
    pub(crate) async fn ready(&self, lost: Option<u64>) -> Result<Arc<Running>, BackendError> {
        let failed = |reason: String| BackendError::failed(&self.spec().name, reason);
        let mut phase = self.phase.clone();
        let until = tokio::time::Instant::now() + self.spec().patience;
        let begun = Instant::now();
        let mut ordered = false;
        loop {
            let now = phase.borrow_and_update().clone();
            match now {
                Phase::Ready(running) if lost != Some(running.generation) || begun.elapsed() > DOUBT => {
                    return Ok(running);
                }
                // A pool that failed is tried again, once a request.
                Phase::Failed(reason) if ordered => return Err(failed(reason)),
                Phase::Unloaded | Phase::Failed(_) => {
                    ordered = true;
                    self.orders.send(Order::Load).await.map_err(|error| failed(error.to_string()))?;
                    // What it is doing now is seen from here on.
                    let _ = tokio::time::timeout(DOUBT, phase.changed()).await;
                }
                _ => {}
            }
            let look = until.min(tokio::time::Instant::now() + DOUBT);
            let changed = tokio::time::timeout_at(look, phase.changed()).await;
            if matches!(changed, Ok(Err(_))) {
                return Err(failed("its supervisor is gone".to_owned()));
            }
            if tokio::time::Instant::now() >= until {
                let patience = self.spec().patience.as_secs();
                return Err(failed(format!("it is not ready after {patience} s: {}", self.phase())));
            }
        }
    }

    /// Requests that use it.
    pub(crate) fn active(&self) -> usize {
        self.usage.active()
    }

    pub(crate) fn in_use(&self) -> InUse {
        self.usage.begin()
    }
}
