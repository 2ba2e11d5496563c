//! Sessions of the engine as targets and drafters.

use std::sync::Arc;

use async_trait::async_trait;
use tightwad_core::{
    BackendError, Device, Draft, DraftCost, Drafter, PassCost, Proposal, StepResult, Target, TokenId,
};
use tokio::sync::mpsc;

use crate::engine::Engine;
use crate::error::SessionError;
use crate::session::Session;
use crate::weights::Weights;

/// Converts an error of the engine into a backend's error.
pub(crate) fn backend_error(backend: &str, error: SessionError) -> BackendError {
    let invalid = |parameter, code| BackendError::Invalid { message: error.to_string(), parameter, code };
    match error {
        SessionError::Overloaded { waiting } => {
            BackendError::Overloaded { backend: backend.to_owned(), waiting }
        }
        SessionError::TooLong { .. } => invalid(Some("messages"), Some("context_length_exceeded")),
        SessionError::EmptyPrompt => invalid(Some("prompt"), None),
        SessionError::UnknownBias { .. } | SessionError::AllForbidden => invalid(Some("logit_bias"), None),
        SessionError::Constraint(_) => invalid(Some("response_format"), None),
        other => BackendError::failed(backend, other),
    }
}

pub(crate) fn device(engine: &Engine) -> Device {
    if engine.shares_cpu() { Device::LocalCpu } else { Device::Dedicated }
}

/// A session as a target.
pub(crate) struct LlamaTarget {
    name: Arc<str>,
    session: Session,
    /// The steps of the running decode. Dropping the receiver stops the engine's work.
    steps: Option<mpsc::UnboundedReceiver<Result<StepResult, SessionError>>>,
    weights: Arc<Weights>,
    expected: PassCost,
    device: Device,
}

impl LlamaTarget {
    pub(crate) fn new(name: &Arc<str>, session: Session, engine: &Engine) -> Self {
        let stats = engine.stats();
        let expected = PassCost {
            time_per_token: stats.time_per_token(),
            time_per_row: stats.time_per_row(),
            ..PassCost::default()
        };
        Self {
            name: name.clone(),
            session,
            steps: None,
            weights: engine.weights().clone(),
            expected,
            device: device(engine),
        }
    }
}

#[async_trait]
impl Target for LlamaTarget {
    async fn verify(&mut self, draft: &Draft) -> Result<StepResult, BackendError> {
        let result = self.session.verify(draft.clone()).await;
        result.map_err(|error| backend_error(&self.name, error))
    }

    async fn append_unverified(&mut self, tokens: &[TokenId]) -> Result<usize, BackendError> {
        let result = self.session.accept(tokens.to_vec()).await;
        result.map_err(|error| backend_error(&self.name, error))
    }

    async fn decode(&mut self, max: u32) -> Result<(), BackendError> {
        let steps = self.session.decode(max).map_err(|error| backend_error(&self.name, error))?;
        self.steps = Some(steps);
        Ok(())
    }

    async fn step(&mut self) -> Result<Option<StepResult>, BackendError> {
        let Some(steps) = &mut self.steps else { return Ok(None) };
        let step = steps.recv().await;
        step.transpose().map_err(|error| backend_error(&self.name, error))
    }

    fn bytes(&self, token: TokenId) -> Vec<u8> {
        self.weights.token_bytes(token)
    }

    fn expected_cost(&self) -> PassCost {
        self.expected
    }

    fn device(&self) -> Device {
        self.device.clone()
    }
}

/// A session as a drafter.
pub(crate) struct LlamaDrafter {
    name: Arc<str>,
    session: Session,
    device: Device,
    expected: DraftCost,
}

impl LlamaDrafter {
    pub(crate) fn new(name: &Arc<str>, session: Session, engine: &Engine, prompt: usize) -> Self {
        let stats = engine.stats();
        let unread_tokens = u32::try_from(prompt).unwrap_or(u32::MAX).saturating_sub(session.reused_tokens());
        let expected = DraftCost {
            startup: stats.time_per_row() * unread_tokens,
            time_per_token: stats.time_per_token(),
            ..DraftCost::default()
        };
        Self { name: name.clone(), session, device: device(engine), expected }
    }
}

#[async_trait]
impl Drafter for LlamaDrafter {
    fn name(&self) -> &str {
        &self.name
    }

    fn device(&self) -> Device {
        self.device.clone()
    }

    fn expected_cost(&self) -> DraftCost {
        self.expected
    }

    async fn propose(
        &mut self,
        output: &[TokenId],
        max: u32,
        min_probability: f32,
    ) -> Result<Vec<Proposal>, BackendError> {
        let result = self.session.propose(output.to_vec(), max, min_probability).await;
        result.map_err(|error| backend_error(&self.name, error))
    }
}
