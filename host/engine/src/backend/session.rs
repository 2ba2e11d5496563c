//! The engine's sessions as the modes know them.

use std::sync::Arc;

use async_trait::async_trait;
use tightwad_core::{
    BackendError, Draft, Drafter, Expected, Pass, Processor, Proposal, Target, TokenId, Verified,
};
use tokio::sync::mpsc;

use crate::engine::Engine;
use crate::error::SessionError;
use crate::session::Session;
use crate::weights::Weights;

/// The engine's error as a backend's.
pub(crate) fn translate(backend: &str, error: SessionError) -> BackendError {
    let invalid = |parameter, code| BackendError::Invalid { message: error.to_string(), parameter, code };
    match error {
        SessionError::Overloaded { waiting } => {
            BackendError::Overloaded { backend: backend.to_owned(), waiting }
        }
        SessionError::TooLong { .. } => invalid(Some("messages"), Some("context_length_exceeded")),
        SessionError::EmptyPrompt => invalid(Some("prompt"), None),
        SessionError::Constraint(_) => invalid(Some("response_format"), None),
        other => BackendError::failed(backend, other),
    }
}

fn processor(engine: &Engine) -> Processor {
    if engine.takes_turns() { Processor::Here } else { Processor::Own }
}

/// A session that verifies.
pub(crate) struct LlamaTarget {
    name: Arc<str>,
    session: Session,
    /// Of the decode under way; dropping it ends the engine's work.
    steps: Option<mpsc::UnboundedReceiver<Result<Verified, SessionError>>>,
    weights: Arc<Weights>,
    expected: Pass,
    processor: Processor,
}

impl LlamaTarget {
    pub(crate) fn new(name: &Arc<str>, session: Session, engine: &Engine) -> Self {
        let stats = engine.stats();
        let expected = Pass { token: stats.token_time(), row: stats.row_time(), ..Pass::default() };
        Self {
            name: name.clone(),
            session,
            steps: None,
            weights: engine.weights().clone(),
            expected,
            processor: processor(engine),
        }
    }
}

#[async_trait]
impl Target for LlamaTarget {
    async fn verify(&mut self, draft: &Draft) -> Result<Verified, BackendError> {
        let done = self.session.verify(draft.clone()).await;
        done.map_err(|error| translate(&self.name, error))
    }

    async fn accept(&mut self, tokens: &[TokenId]) -> Result<usize, BackendError> {
        let done = self.session.accept(tokens.to_vec()).await;
        done.map_err(|error| translate(&self.name, error))
    }

    async fn decode(&mut self, max: u32) -> Result<(), BackendError> {
        let steps = self.session.decode(max).map_err(|error| translate(&self.name, error))?;
        self.steps = Some(steps);
        Ok(())
    }

    async fn step(&mut self) -> Result<Option<Verified>, BackendError> {
        let Some(steps) = &mut self.steps else { return Ok(None) };
        let step = steps.recv().await;
        step.transpose().map_err(|error| translate(&self.name, error))
    }

    fn bytes(&self, token: TokenId) -> Vec<u8> {
        self.weights.bytes(token)
    }

    fn expected(&self) -> Pass {
        self.expected
    }

    fn processor(&self) -> Processor {
        self.processor.clone()
    }
}

/// A session that proposes.
pub(crate) struct LlamaDrafter {
    name: Arc<str>,
    session: Session,
    processor: Processor,
    expected: Expected,
}

impl LlamaDrafter {
    pub(crate) fn new(name: &Arc<str>, session: Session, engine: &Engine, prompt: usize) -> Self {
        let stats = engine.stats();
        let unread = u32::try_from(prompt).unwrap_or(u32::MAX).saturating_sub(session.reused());
        let expected =
            Expected { startup: stats.row_time() * unread, token: stats.token_time(), ..Expected::default() };
        Self { name: name.clone(), session, processor: processor(engine), expected }
    }
}

#[async_trait]
impl Drafter for LlamaDrafter {
    fn name(&self) -> &str {
        &self.name
    }

    fn processor(&self) -> Processor {
        self.processor.clone()
    }

    fn expected(&self) -> Expected {
        self.expected
    }

    async fn propose(
        &mut self,
        output: &[TokenId],
        max: u32,
        min_probability: f32,
    ) -> Result<Vec<Proposal>, BackendError> {
        let done = self.session.propose(output.to_vec(), max, min_probability).await;
        done.map_err(|error| translate(&self.name, error))
    }
}
