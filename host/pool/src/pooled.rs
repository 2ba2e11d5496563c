//! A pool as scripts hold it: requests that outlive its processes.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use tightwad_core::{
    Backend, BackendError, Drafter, DrafterSource, Expected, Followed, Generator, Left, Load, ModelFacts,
    OpenTarget, Outcome, Processor, Proposal, Request, Scored, Scorer, Sink, Successor, TargetSource, Task,
    Tokenizer, generate_plainly, hexadecimal,
};
use tightwad_engine::WeightsTokenizer;

use crate::pooling::Pooling;
use crate::state::{InUse, Phase};

/// The pool under its own name, as scripts hold it.
#[derive(Clone)]
pub struct Pooled(pub Arc<Pooling>);

impl Backend for Pooled {
    fn name(&self) -> &str {
        &self.0.spec().name
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

    fn as_generator(&self) -> Option<&dyn Generator> {
        Some(self)
    }

    fn as_target(&self) -> Option<&dyn TargetSource> {
        Some(self)
    }

    fn as_drafter(&self) -> Option<&dyn DrafterSource> {
        if self.0.weights.has_recurrent_state() { None } else { Some(self) }
    }

    fn as_scorer(&self) -> Option<&dyn Scorer> {
        Some(self)
    }
}

#[async_trait]
impl Generator for Pooled {
    async fn generate(&self, request: Request, sink: Sink) -> Result<Outcome, BackendError> {
        generate_plainly(self, request, sink).await
    }
}

#[async_trait]
impl TargetSource for Pooled {
    fn verifies(&self) -> bool {
        !self.0.weights.has_recurrent_state()
    }

    fn resumes(&self) -> bool {
        true
    }

    fn tokenizer(&self) -> Option<Arc<dyn Tokenizer>> {
        let (weights, context) = (self.0.weights.clone(), self.0.starter.context());
        Some(Arc::new(WeightsTokenizer { weights, context }))
    }

    async fn read(&self, request: &Arc<Request>) -> Result<Task, BackendError> {
        let running = self.0.ready(None).await?;
        let _use = self.0.in_use();
        running.node.target()?.read(request).await
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
}

#[async_trait]
impl DrafterSource for Pooled {
    async fn open_drafter(&self, task: &Task) -> Result<Box<dyn Drafter>, BackendError> {
        let running = self.0.ready(None).await?;
        let in_use = self.0.in_use();
        let drafter = running.node.drafter()?.open_drafter(task).await?;
        Ok(Box::new(PooledDrafter { drafter, _use: in_use }))
    }
}

#[async_trait]
impl Scorer for Pooled {
    async fn score(
        &self,
        request: &Arc<Request>,
        answer: &str,
        part: Range<usize>,
    ) -> Result<Vec<Scored>, BackendError> {
        let running = self.0.ready(None).await?;
        let _use = self.0.in_use();
        match running.node.scorer()?.score(request, answer, part.clone()).await {
            Err(error) if error.is_loss() => {
                let running = self.0.ready(Some(running.generation)).await?;
                running.node.scorer()?.score(request, answer, part).await
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
            match running.node.target()?.open_target(&self.request, left).await {
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
        output: &[tightwad_core::TokenId],
        max: u32,
        min_probability: f32,
    ) -> Result<Vec<Proposal>, BackendError> {
        self.drafter.propose(output, max, min_probability).await
    }
}
