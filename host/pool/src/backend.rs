//! A pool as a backend. Its requests continue when the child process of the pool is lost.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use tightwad_core::{
    Backend, BackendError, Device, DraftCost, Drafter, DrafterSource, FailoverTarget, Generator, Health,
    Load, ModelFacts, OpenedTarget, Outcome, PreparedRequest, Proposal, Request, ResumePoint, Scorer, Sink,
    StandbySource, TargetSource, TokenScore, Tokenizer, generate_by_decoding, to_hex,
};
use tightwad_engine::WeightsTokenizer;

use crate::pool::Pool;
use crate::state::{Phase, UsageGuard};

/// A pool as a backend, under the pool's name.
#[derive(Clone)]
pub struct PoolBackend(pub Arc<Pool>);

impl Backend for PoolBackend {
    fn name(&self) -> &str {
        &self.0.spec().name
    }

    fn vocabulary(&self) -> Option<[u8; 32]> {
        Some(self.0.weights.vocabulary_digest())
    }

    /// The times are 0 unless the pool is ready.
    fn facts(&self) -> Option<ModelFacts> {
        let (weights, launcher) = (&self.0.weights, &self.0.launcher);
        let running = match self.0.phase() {
            Phase::Ready(running) => running.node.facts(),
            _ => None,
        };
        Some(ModelFacts {
            vocabulary: to_hex(&weights.vocabulary_digest()),
            weights: to_hex(&weights.file_digest()),
            description: weights.description(),
            bytes: launcher.model.weight_bytes(),
            context: launcher.context(),
            slots: launcher.spec.slots,
            tools: launcher.tools,
            heads: weights.head_count(),
            time_per_token_ns: running.as_ref().map_or(0, |facts| facts.time_per_token_ns),
            time_per_row_ns: running.as_ref().map_or(0, |facts| facts.time_per_row_ns),
        })
    }

    fn load(&self) -> Load {
        Load { active: self.0.usage.active(), waiting: 0 }
    }

    fn health(&self) -> Health {
        match self.0.phase() {
            // A request loads the model.
            Phase::Ready(_) | Phase::Unloaded => Health::Ready,
            Phase::Loading(_) | Phase::Draining | Phase::Replanning(_) => Health::Loading,
            Phase::Failed(reason) => Health::Failing(reason),
        }
    }

    fn as_generator(&self) -> Option<&dyn Generator> {
        Some(self)
    }

    fn as_target(&self) -> Option<&dyn TargetSource> {
        Some(self)
    }

    fn as_drafter(&self) -> Option<&dyn DrafterSource> {
        Some(self)
    }

    fn heads(&self) -> Option<Arc<dyn DrafterSource>> {
        let heads = || Arc::new(PoolHeads(self.0.clone())) as Arc<dyn DrafterSource>;
        (self.0.weights.head_count() > 0).then(heads)
    }

    fn as_scorer(&self) -> Option<&dyn Scorer> {
        Some(self)
    }
}

#[async_trait]
impl Generator for PoolBackend {
    async fn generate(&self, request: Request, sink: Sink) -> Result<Outcome, BackendError> {
        generate_by_decoding(self, request, sink).await
    }
}

#[async_trait]
impl TargetSource for PoolBackend {
    fn resumes(&self) -> bool {
        true
    }

    fn tokenizer(&self) -> Option<Arc<dyn Tokenizer>> {
        let (weights, context) = (self.0.weights.clone(), self.0.launcher.context());
        Some(Arc::new(WeightsTokenizer { weights, context }))
    }

    async fn prepare(&self, request: &Arc<Request>) -> Result<PreparedRequest, BackendError> {
        let running = self.0.wait_until_ready(None).await?;
        let _usage = self.0.acquire();
        running.node.target()?.prepare(request).await
    }

    async fn open_target(
        &self,
        request: &Arc<Request>,
        resume_point: Option<&ResumePoint>,
    ) -> Result<OpenedTarget, BackendError> {
        let mut restarts =
            PoolRestarts { pool: self.0.clone(), request: request.clone(), generation: None, usage: None };
        let opened = restarts.open(None, resume_point).await?;
        Ok(FailoverTarget::open(opened, Box::new(restarts), resume_point))
    }
}

#[async_trait]
impl DrafterSource for PoolBackend {
    async fn open_drafter(&self, request: &PreparedRequest) -> Result<Box<dyn Drafter>, BackendError> {
        let running = self.0.wait_until_ready(None).await?;
        let usage = self.0.acquire();
        let drafter = running.node.drafter()?.open_drafter(request).await?;
        Ok(Box::new(PoolDrafter { drafter, _usage: usage }))
    }
}

/// The draft heads of a pool's model.
struct PoolHeads(Arc<Pool>);

#[async_trait]
impl DrafterSource for PoolHeads {
    async fn open_drafter(&self, request: &PreparedRequest) -> Result<Box<dyn Drafter>, BackendError> {
        let running = self.0.wait_until_ready(None).await?;
        let usage = self.0.acquire();
        let heads = running.node.heads();
        let heads =
            heads.ok_or_else(|| BackendError::unsupported(&self.0.spec().name, "draft with heads"))?;
        let drafter = heads.open_drafter(request).await?;
        Ok(Box::new(PoolDrafter { drafter, _usage: usage }))
    }
}

#[async_trait]
impl Scorer for PoolBackend {
    async fn score(
        &self,
        request: &Arc<Request>,
        answer: &str,
        range: Range<usize>,
    ) -> Result<Vec<TokenScore>, BackendError> {
        let running = self.0.wait_until_ready(None).await?;
        let _usage = self.0.acquire();
        match running.node.scorer()?.score(request, answer, range.clone()).await {
            Err(error) if error.allows_failover() => {
                let running = self.0.wait_until_ready(Some(running.generation)).await?;
                running.node.scorer()?.score(request, answer, range).await
            }
            other => other,
        }
    }
}

/// Opens the target of a request on the next process of the pool when a process is lost.
struct PoolRestarts {
    pool: Arc<Pool>,
    request: Arc<Request>,
    generation: Option<u64>,
    /// `None` while the request waits. A pool that unloads waits for its users, which would be a deadlock.
    usage: Option<UsageGuard>,
}

/// The maximum number of attempts to open a target for one failure.
const MAX_OPEN_ATTEMPTS: usize = 8;

impl PoolRestarts {
    /// Opens a target when the pool is ready. `error` is the failure of the previous process.
    async fn open(
        &mut self,
        mut error: Option<BackendError>,
        resume_point: Option<&ResumePoint>,
    ) -> Result<OpenedTarget, BackendError> {
        for _ in 0..MAX_OPEN_ATTEMPTS {
            self.usage = None;
            let running = self.pool.wait_until_ready(self.generation).await?;
            self.usage = Some(self.pool.acquire());
            self.generation = Some(running.generation);
            match running.node.target()?.open_target(&self.request, resume_point).await {
                // A full queue is not a failure of the process. The client receives that error.
                Err(failure @ BackendError::Failed { .. }) => error = Some(failure),
                other => return other,
            }
        }
        Err(error.unwrap_or_else(|| {
            BackendError::failed(&self.pool.spec().name, "its process is lost at each attempt")
        }))
    }
}

#[async_trait]
impl StandbySource for PoolRestarts {
    async fn open_next(
        &mut self,
        error: BackendError,
        resume_point: &ResumePoint,
    ) -> Result<OpenedTarget, BackendError> {
        let (request, committed) = (&self.request.id, resume_point.output.len());
        tracing::warn!(request, committed, %error, "pool is lost; the request waits until the pool is ready");
        let start = Instant::now();
        let opened = self.open(Some(error), Some(resume_point)).await?;
        let seconds = start.elapsed().as_secs_f32();
        tracing::info!(request = self.request.id, committed, seconds, "the request continues");
        Ok(opened)
    }
}

/// A drafter session that counts as a use of its pool.
struct PoolDrafter {
    drafter: Box<dyn Drafter>,
    _usage: UsageGuard,
}

#[async_trait]
impl Drafter for PoolDrafter {
    fn name(&self) -> &str {
        self.drafter.name()
    }

    fn device(&self) -> Device {
        self.drafter.device()
    }

    fn expected_cost(&self) -> DraftCost {
        self.drafter.expected_cost()
    }

    async fn propose(
        &mut self,
        output: &[tightwad_core::TokenId],
        max_tokens: u32,
        min_probability: f32,
    ) -> Result<Vec<Proposal>, BackendError> {
        self.drafter.propose(output, max_tokens, min_probability).await
    }
}
