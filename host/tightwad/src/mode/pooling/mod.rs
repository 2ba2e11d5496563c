//! Pooling: one model's layers over many machines, through llama.cpp's RPC.
//!
//! A plugin says which layers go where; the model runs in a process of its own, which ends when a worker
//! is lost; a supervisor then starts it anew over what is left, and every stream goes on from its last
//! committed token.

mod child;
mod kept;
mod layout;
mod pools;
mod spec;
mod start;
mod state;
mod status;
mod supervisor;
mod survey;

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
pub use child::PoolSaid;
pub use layout::Placed;
pub use pools::Pools;
pub use spec::{PoolSpec, WorkerSpec};
pub use state::{Phase, Running};
pub use status::{PoolMemory, PoolPlan, PoolStatus, memory_of, plan_pool};
pub use survey::{Absent, Found, survey};
use tightwad_engine::pool::ModelShape;
use tightwad_engine::{ChatTemplate, Weights};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;

use self::start::Starter;
use self::state::{InUse, Usage};
use self::supervisor::{Order, Supervisor};
use crate::backend::{
    Backend, BackendError, Capabilities, Drafter, Expected, Followed, Left, OpenTarget, Processor, Proposal,
    Scored, Sink, Successor, Task, Tokenizer, WeightsTokenizer, generate_plainly,
};
use crate::plugin::PlacementPlugin;
use crate::types::{Load, ModelFacts, Outcome, Request, hexadecimal};

/// How long a process that broke one call may take to be found dead.
const DOUBT: Duration = Duration::from_secs(3);
/// Orders that may wait.
const ORDERS: usize = 64;

/// A model over a pool of machines.
pub struct Pooling {
    starter: Arc<Starter>,
    weights: Arc<Weights>,
    phase: watch::Receiver<Phase>,
    orders: mpsc::Sender<Order>,
    usage: Arc<Usage>,
    supervisor: AbortHandle,
}

impl Drop for Pooling {
    fn drop(&mut self) {
        self.supervisor.abort();
    }
}

impl Pooling {
    /// Makes a pool, and loads it unless the script says that the first request does.
    ///
    /// # Errors
    ///
    /// One sentence: the file is no model, or the pool does not start.
    pub async fn new(
        spec: PoolSpec,
        plugin: Arc<PlacementPlugin>,
        pools: &Arc<Pools>,
    ) -> Result<Arc<Self>, String> {
        let path = spec.path.clone();
        let read = move || Ok((ModelShape::read(&path)?, Weights::vocabulary_of(&path)?));
        let read = tokio::task::spawn_blocking(read).await.map_err(|error| error.to_string())?;
        let (model, weights) = read.map_err(|error: tightwad_engine::LoadError| error.to_string())?;
        let tools = ChatTemplate::of(&weights).is_ok_and(|template| template.knows_tools());
        let starter = Arc::new(Starter::new(spec, model, plugin, tools)?);
        let (shown, phase) = watch::channel(Phase::Unloaded);
        let (orders, inbox) = mpsc::channel(ORDERS);
        let usage = Arc::new(Usage::new());
        let supervisor = Supervisor {
            starter: starter.clone(),
            pools: pools.clone(),
            usage: usage.clone(),
            phase: shown,
            orders: inbox,
            generation: 0,
        };
        let supervisor = tokio::spawn(supervisor.run()).abort_handle();
        let pool = Arc::new(Self { starter, weights, phase, orders, usage, supervisor });
        pools.add(&pool);
        if !pool.spec().on_demand {
            pool.first_start().await?;
        }
        Ok(pool)
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

    /// The first start says what is wrong, instead of trying again.
    async fn first_start(&self) -> Result<(), String> {
        let mut phase = self.phase.clone();
        self.orders.send(Order::Load).await.map_err(|error| error.to_string())?;
        let over = |phase: &Phase| matches!(phase, Phase::Ready(_) | Phase::Failed(_) | Phase::Replanning(_));
        let now = phase.wait_for(over).await.map_err(|error| error.to_string())?.clone();
        match now {
            Phase::Failed(reason) | Phase::Replanning(reason) => {
                Err(format!("the pool '{}' does not start: {reason}", self.spec().name))
            }
            _ => Ok(()),
        }
    }

    /// Waits until it answers: not with process `lost`, unless that turns out to live.
    async fn ready(&self, lost: Option<u64>) -> Result<Arc<Running>, BackendError> {
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

    fn in_use(&self) -> InUse {
        self.usage.begin()
    }
}

/// The pool under its own name, as scripts hold it.
#[derive(Clone)]
pub struct Pooled(pub Arc<Pooling>);

#[async_trait]
impl Backend for Pooled {
    fn name(&self) -> &str {
        &self.0.spec().name
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::of_model(self.0.starter.tools, self.0.weights.has_recurrent_state())
    }

    fn vocabulary(&self) -> Option<[u8; 32]> {
        Some(self.0.weights.vocabulary())
    }

    /// Times are those of the pool that runs.
    fn facts(&self) -> Option<ModelFacts> {
        let (weights, starter) = (&self.0.weights, &self.0.starter);
        let running = match self.0.phase() {
            Phase::Ready(running) => running.node.facts(),
            _ => None,
        };
        Some(ModelFacts {
            vocabulary: hexadecimal(&weights.vocabulary()),
            weights: hexadecimal(&weights.digest()),
            description: weights.description(),
            bytes: starter.model.weights(),
            context: starter.context(),
            slots: starter.spec.slots,
            tools: starter.tools,
            recurrent: weights.has_recurrent_state(),
            token_ns: running.as_ref().map_or(0, |facts| facts.token_ns),
            row_ns: running.as_ref().map_or(0, |facts| facts.row_ns),
        })
    }

    fn load(&self) -> Load {
        Load { active: self.0.usage.active(), waiting: 0 }
    }

    fn tokenizer(&self) -> Option<Arc<dyn Tokenizer>> {
        let (weights, context) = (self.0.weights.clone(), self.0.starter.context());
        Some(Arc::new(WeightsTokenizer { weights, context }))
    }

    async fn generate(&self, request: Request, sink: Sink) -> Result<Outcome, BackendError> {
        generate_plainly(self, request, sink).await
    }

    async fn read(&self, request: &Arc<Request>) -> Result<Task, BackendError> {
        let running = self.0.ready(None).await?;
        let _use = self.0.in_use();
        running.node.read(request).await
    }

    async fn open_target(
        &self,
        request: &Arc<Request>,
        left: Option<&Left>,
    ) -> Result<OpenTarget, BackendError> {
        let mut next =
            Next { pool: self.0.clone(), request: request.clone(), generation: None, in_use: None };
        let opened = next.open(None, left).await?;
        Ok(Followed::open(opened, Box::new(next), left))
    }

    async fn open_drafter(&self, task: &Task) -> Result<Box<dyn Drafter>, BackendError> {
        let running = self.0.ready(None).await?;
        let in_use = self.0.in_use();
        let drafter = running.node.open_drafter(task).await?;
        Ok(Box::new(PooledDrafter { drafter, _use: in_use }))
    }

    async fn score(
        &self,
        request: &Arc<Request>,
        answer: &str,
        part: Range<usize>,
    ) -> Result<Vec<Scored>, BackendError> {
        let running = self.0.ready(None).await?;
        let _use = self.0.in_use();
        match running.node.score(request, answer, part.clone()).await {
            Err(error) if error.is_loss() => {
                let running = self.0.ready(Some(running.generation)).await?;
                running.node.score(request, answer, part).await
            }
            other => other,
        }
    }
}

/// The next process of the pool goes on where one was lost.
struct Next {
    pool: Arc<Pooling>,
    request: Arc<Request>,
    generation: Option<u64>,
    /// Absent while it waits: a pool that is to be unloaded waits for those that use it.
    in_use: Option<InUse>,
}

/// Processes that one request may outlive.
const LIVES: usize = 8;

impl Next {
    async fn open(
        &mut self,
        mut lost: Option<BackendError>,
        left: Option<&Left>,
    ) -> Result<OpenTarget, BackendError> {
        for _ in 0..LIVES {
            self.in_use = None;
            let running = self.pool.ready(self.generation).await?;
            self.in_use = Some(self.pool.in_use());
            self.generation = Some(running.generation);
            match running.node.open_target(&self.request, left).await {
                // Full queues are the client's business, not the pool's.
                Err(error @ BackendError::Failed { .. }) => lost = Some(error),
                other => return other,
            }
        }
        Err(lost
            .unwrap_or_else(|| BackendError::failed(&self.pool.spec().name, "it is lost again and again")))
    }
}

#[async_trait]
impl Successor for Next {
    async fn next(&mut self, lost: BackendError, left: &Left) -> Result<OpenTarget, BackendError> {
        let (request, committed) = (&self.request.id, left.output.len());
        tracing::warn!(request, committed, %lost, "the pool is lost; the request waits for it");
        let begun = Instant::now();
        let opened = self.open(Some(lost), Some(left)).await?;
        let seconds = begun.elapsed().as_secs_f32();
        tracing::info!(request = self.request.id, committed, seconds, "the request goes on");
        Ok(opened)
    }
}

/// A drafter that keeps its pool in use.
struct PooledDrafter {
    drafter: Box<dyn Drafter>,
    _use: InUse,
}

#[async_trait]
impl Drafter for PooledDrafter {
    fn name(&self) -> &str {
        self.drafter.name()
    }

    fn processor(&self) -> Processor {
        self.drafter.processor()
    }

    fn expected(&self) -> Expected {
        self.drafter.expected()
    }

    async fn propose(
        &mut self,
        output: &[tightwad_engine::TokenId],
        max: u32,
        min_probability: f32,
    ) -> Result<Vec<Proposal>, BackendError> {
        self.drafter.propose(output, max, min_probability).await
    }
}
