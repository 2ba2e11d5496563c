//! The engine's sessions as the modes know them.

use std::sync::Arc;

use async_trait::async_trait;
use tightwad_engine::{Engine, Session, SessionError, TokenId, Weights};
use tokio::sync::mpsc;

use crate::backend::{BackendError, DecodeStream, Drafter, Expected, Pass, Proposal, Target, Verified};

/// The engine's error as a backend's.
pub(super) fn translate(backend: &str, error: SessionError) -> BackendError {
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

/// A session that verifies.
pub(super) struct LlamaTarget {
    name: Arc<str>,
    session: Session,
    weights: Arc<Weights>,
    expected: Pass,
}

impl LlamaTarget {
    pub(super) fn new(name: &Arc<str>, session: Session, engine: &Engine) -> Self {
        let stats = engine.stats();
        let expected = Pass { token: stats.token_time(), row: stats.row_time() };
        Self { name: name.clone(), session, weights: engine.weights().clone(), expected }
    }
}

#[async_trait]
impl Target for LlamaTarget {
    async fn verify(&mut self, draft: &[TokenId]) -> Result<Verified, BackendError> {
        let done = self.session.verify(draft.to_vec()).await;
        done.map_err(|error| translate(&self.name, error))
    }

    fn decode(&mut self, max: u32) -> Result<DecodeStream, BackendError> {
        let mut steps = self.session.decode(max).map_err(|error| translate(&self.name, error))?;
        let (sender, stream) = mpsc::unbounded_channel();
        let name = self.name.clone();
        tokio::spawn(async move {
            // Ends when the reader is gone, which ends the engine's work too.
            loop {
                let step = tokio::select! {
                    step = steps.recv() => step,
                    () = sender.closed() => break,
                };
                let Some(step) = step else { break };
                if sender.send(step.map_err(|error| translate(&name, error))).is_err() {
                    break;
                }
            }
        });
        Ok(stream)
    }

    fn bytes(&self, token: TokenId) -> Vec<u8> {
        self.weights.bytes(token)
    }

    fn expected(&self) -> Pass {
        self.expected
    }
}

/// A session that proposes.
pub(super) struct LlamaDrafter {
    name: Arc<str>,
    session: Session,
    shares_processor: bool,
    expected: Expected,
}

impl LlamaDrafter {
    pub(super) fn new(name: &Arc<str>, session: Session, engine: &Engine, prompt: usize) -> Self {
        let stats = engine.stats();
        let unread = u32::try_from(prompt).unwrap_or(u32::MAX).saturating_sub(session.reused());
        let expected = Expected { startup: stats.row_time() * unread, token: stats.token_time() };
        Self { name: name.clone(), session, shares_processor: engine.takes_turns(), expected }
    }
}

#[async_trait]
impl Drafter for LlamaDrafter {
    fn name(&self) -> &str {
        &self.name
    }

    fn shares_processor(&self) -> bool {
        self.shares_processor
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
