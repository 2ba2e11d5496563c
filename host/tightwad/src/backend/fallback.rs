//! Backends in order: when one is lost, the next goes on from the last committed token, in the same
//! stream.
//!
//! Invariant: `left` is what the client has been given, whichever backend it came from.

use std::collections::VecDeque;
use std::sync::Arc;

use async_trait::async_trait;
use tightwad_engine::{Draft, TokenId};

use super::{
    Backend, BackendError, Capabilities, Drafter, Left, OpenTarget, Pass, Processor, Scored, SharedBackend,
    Sink, Target, Task, Tokenizer, Verified, generate_plainly,
};
use crate::types::{Load, ModelFacts, Outcome, Request};

/// The first backend answers; the others stand by, in order.
pub struct Fallback {
    first: SharedBackend,
    others: Vec<SharedBackend>,
}

impl Fallback {
    /// Stands `others` by for `first`; all of them verify, with the same vocabulary.
    #[must_use]
    pub fn new(first: SharedBackend, others: Vec<SharedBackend>) -> Self {
        Self { first, others }
    }

    fn order(&self) -> impl Iterator<Item = &SharedBackend> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// The answer of the first that is not lost.
    async fn first_answer<'a, T, F>(&'a self, ask: impl Fn(&'a SharedBackend) -> F) -> Result<T, BackendError>
    where
        F: Future<Output = Result<T, BackendError>>,
    {
        let mut last = None;
        for backend in self.order() {
            match ask(backend).await {
                Err(error) if error.is_loss() => {
                    tracing::warn!(backend = backend.name(), %error, "lost; asking the next one");
                    last = Some(error);
                }
                other => return other,
            }
        }
        Err(last.unwrap_or_else(|| BackendError::failed(self.name(), "there is no backend")))
    }
}

#[async_trait]
impl Backend for Fallback {
    fn name(&self) -> &str {
        self.first.name()
    }

    /// What all of them can do.
    fn capabilities(&self) -> Capabilities {
        self.others.iter().fold(self.first.capabilities(), |all, one| all.common(one.capabilities()))
    }

    fn vocabulary(&self) -> Option<[u8; 32]> {
        self.first.vocabulary()
    }

    fn facts(&self) -> Option<ModelFacts> {
        self.first.facts()
    }

    fn load(&self) -> Load {
        self.first.load()
    }

    fn tokenizer(&self) -> Option<Arc<dyn Tokenizer>> {
        self.first.tokenizer()
    }

    async fn generate(&self, request: Request, sink: Sink) -> Result<Outcome, BackendError> {
        generate_plainly(self, request, sink).await
    }

    async fn read(&self, request: &Arc<Request>) -> Result<Task, BackendError> {
        self.first_answer(|backend| backend.read(request)).await
    }

    async fn open_target(
        &self,
        request: &Arc<Request>,
        left: Option<&Left>,
    ) -> Result<OpenTarget, BackendError> {
        let mut rest: VecDeque<SharedBackend> = self.order().cloned().collect();
        let mut last = None;
        while let Some(backend) = rest.pop_front() {
            match backend.open_target(request, left).await {
                Err(error) if error.is_loss() && !rest.is_empty() => {
                    tracing::warn!(backend = backend.name(), %error, "lost; asking the next one");
                    last = Some(error);
                }
                Err(error) => return Err(error),
                Ok(opened) => return Ok(self.follow(opened, &backend, rest, left)),
            }
        }
        Err(last.unwrap_or_else(|| BackendError::failed(self.name(), "there is no backend")))
    }

    async fn open_drafter(&self, task: &Task) -> Result<Box<dyn Drafter>, BackendError> {
        self.first_answer(|backend| backend.open_drafter(task)).await
    }

    async fn score(&self, request: &Arc<Request>, answer: &str) -> Result<Vec<Scored>, BackendError> {
        self.first_answer(|backend| backend.score(request, answer)).await
    }
}

impl Fallback {
    fn follow(
        &self,
        opened: OpenTarget,
        backend: &SharedBackend,
        rest: VecDeque<SharedBackend>,
        left: Option<&Left>,
    ) -> OpenTarget {
        let weights = |backend: &SharedBackend| backend.facts().map(|facts| facts.weights);
        let task = opened.task.clone();
        let session = FallbackTarget {
            current: opened.session,
            weights: weights(&self.first),
            // Nothing was committed yet: whoever answers now is the one whose answer it is, but only
            // the first one is what the script promised.
            exact: weights(&self.first) == weights(backend),
            rest,
            request: task.request.clone(),
            left: Left {
                prompt: task.prompt.clone(),
                output: left.map(|left| left.output.clone()).unwrap_or_default(),
                max_tokens: task.max_tokens,
            },
            decoding: 0,
        };
        OpenTarget { session: Box::new(session), cached: opened.cached, task }
    }
}

struct FallbackTarget {
    current: Box<dyn Target>,
    /// Digest of the weights that the script promised.
    weights: Option<String>,
    exact: bool,
    rest: VecDeque<SharedBackend>,
    request: Arc<Request>,
    left: Left,
    /// Tokens still to decode.
    decoding: u32,
}

impl FallbackTarget {
    /// Goes over to the next backend, or returns `error`.
    async fn next(&mut self, error: BackendError) -> Result<(), BackendError> {
        let mut error = error;
        while error.is_loss() {
            let Some(backend) = self.rest.pop_front() else { return Err(error) };
            tracing::warn!(
                request = self.request.id,
                committed = self.left.output.len(),
                next = backend.name(),
                %error,
                "the target is lost; the next one goes on"
            );
            match backend.open_target(&self.request, Some(&self.left)).await {
                Ok(opened) => {
                    self.exact &= backend.facts().map(|facts| facts.weights) == self.weights;
                    self.current = opened.session;
                    return Ok(());
                }
                Err(next) => error = next,
            }
        }
        Err(error)
    }

    fn note(&mut self, verified: &Verified) {
        self.left.output.extend(verified.committed.iter().map(|committed| committed.token));
    }
}

#[async_trait]
impl Target for FallbackTarget {
    async fn verify(&mut self, draft: &Draft) -> Result<Verified, BackendError> {
        loop {
            match self.current.verify(draft).await {
                Ok(verified) => {
                    self.note(&verified);
                    return Ok(verified);
                }
                Err(error) => self.next(error).await?,
            }
        }
    }

    async fn decode(&mut self, max: u32) -> Result<(), BackendError> {
        self.decoding = max;
        while let Err(error) = self.current.decode(self.decoding).await {
            self.next(error).await?;
        }
        Ok(())
    }

    async fn step(&mut self) -> Result<Option<Verified>, BackendError> {
        loop {
            match self.current.step().await {
                Ok(Some(verified)) => {
                    self.note(&verified);
                    let committed = u32::try_from(verified.committed.len()).unwrap_or(u32::MAX);
                    self.decoding = self.decoding.saturating_sub(committed);
                    return Ok(Some(verified));
                }
                Ok(None) => return Ok(None),
                Err(error) => {
                    self.next(error).await?;
                    self.decode(self.decoding).await?;
                }
            }
        }
    }

    /// Text of tokens that came from another backend is known by none but that one; equal vocabularies
    /// make the present one's as good.
    fn bytes(&self, token: TokenId) -> Vec<u8> {
        self.current.bytes(token)
    }

    fn expected(&self) -> Pass {
        self.current.expected()
    }

    fn processor(&self) -> Processor {
        self.current.processor()
    }

    fn is_exact(&self) -> bool {
        self.exact && self.current.is_exact()
    }
}
