//! Backends and their roles.
//!
//! A backend runs a model, or a mode over other backends. A backend offers roles: it generates, verifies, drafts or
//! scores. The host refuses to load a script that needs a missing role.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::mpsc;

use crate::error::BackendError;
use crate::event::{Event, Outcome};
use crate::facts::{Load, ModelFacts};
use crate::health::Health;
use crate::request::Request;
use crate::session::{Drafter, OpenedTarget, PreparedRequest, ResumePoint, Tokenizer};
use crate::tokens::TokenScore;

/// Receives the events of one request. When the client disconnects, the channel closes and the backend stops.
pub type Sink = mpsc::Sender<Event>;

/// A backend. All requests share it.
pub trait Backend: Send + Sync {
    /// The name in reports, logs and metrics.
    fn name(&self) -> &str;

    /// The digest of the vocabulary. Two backends exchange token ids only if their digests are equal.
    ///
    /// `None`: the backend works on any vocabulary (lookup), or has no tokens of its own.
    fn vocabulary(&self) -> Option<[u8; 32]> {
        None
    }

    /// The properties of the model; `None`: the backend has no single model.
    fn facts(&self) -> Option<ModelFacts> {
        None
    }

    /// The maximum number of tokens of prompt and answer together; `None`: the number varies or is not known.
    fn context(&self) -> Option<u32> {
        self.facts().map(|facts| facts.context)
    }

    /// The load of the backend.
    fn load(&self) -> Load {
        Load::default()
    }

    /// The health of the backend. A mode is as healthy as the backends that it cannot do without.
    fn health(&self) -> Health {
        Health::Ready
    }

    /// The role that answers requests; `None`: the backend lacks it.
    fn as_generator(&self) -> Option<&dyn Generator> {
        None
    }

    /// The role that opens targets; `None`: the backend lacks it.
    fn as_target(&self) -> Option<&dyn TargetSource> {
        None
    }

    /// The role that opens drafters; `None`: the backend lacks it.
    fn as_drafter(&self) -> Option<&dyn DrafterSource> {
        None
    }

    /// The role that opens drafters with the model's own draft heads, for targets of this backend; `None`: the model has
    /// no heads.
    fn heads(&self) -> Option<Arc<dyn DrafterSource>> {
        None
    }

    /// The only backend for whose targets this one drafts; `None`: it drafts for all.
    fn only_target(&self) -> Option<&SharedBackend> {
        None
    }

    /// The role that scores answers; `None`: the backend lacks it.
    fn as_scorer(&self) -> Option<&dyn Scorer> {
        None
    }

    /// The role that answers requests.
    ///
    /// # Errors
    ///
    /// Returns [`BackendError::Unsupported`] if the backend lacks the role.
    fn generator(&self) -> Result<&dyn Generator, BackendError> {
        self.as_generator().ok_or_else(|| BackendError::unsupported(self.name(), "generate"))
    }

    /// The role that opens targets.
    ///
    /// # Errors
    ///
    /// Returns [`BackendError::Unsupported`] if the backend lacks the role.
    fn target(&self) -> Result<&dyn TargetSource, BackendError> {
        self.as_target().ok_or_else(|| BackendError::unsupported(self.name(), "verify"))
    }

    /// The role that opens drafters.
    ///
    /// # Errors
    ///
    /// Returns [`BackendError::Unsupported`] if the backend lacks the role.
    fn drafter(&self) -> Result<&dyn DrafterSource, BackendError> {
        self.as_drafter().ok_or_else(|| BackendError::unsupported(self.name(), "propose"))
    }

    /// The role that scores answers.
    ///
    /// # Errors
    ///
    /// Returns [`BackendError::Unsupported`] if the backend lacks the role.
    fn scorer(&self) -> Result<&dyn Scorer, BackendError> {
        self.as_scorer().ok_or_else(|| BackendError::unsupported(self.name(), "score"))
    }
}

/// Answers whole requests.
#[async_trait]
pub trait Generator: Send + Sync {
    /// Answers a request. Sends each event to `sink` as soon as the event is final.
    ///
    /// # Errors
    ///
    /// Returns a [`BackendError`] that names the party that must act.
    async fn generate(&self, request: Request, sink: Sink) -> Result<Outcome, BackendError>;
}

/// Opens target sessions, which modes drive.
#[async_trait]
pub trait TargetSource: Send + Sync {
    /// True when the targets can continue after tokens of another target.
    fn resumes(&self) -> bool {
        false
    }

    /// The tokenizer of the model's vocabulary; `None`: the vocabulary is not known.
    fn tokenizer(&self) -> Option<Arc<dyn Tokenizer>> {
        None
    }

    /// Renders and tokenizes the prompt of a request. Opens no session.
    ///
    /// # Errors
    ///
    /// Returns [`BackendError::Invalid`] if the request is invalid for this model, and [`BackendError::Unsupported`] if
    /// the backend has no tokens.
    async fn prepare(&self, request: &Arc<Request>) -> Result<PreparedRequest, BackendError>;

    /// Opens a target session. The session continues from `resume_point` if there is one.
    ///
    /// # Errors
    ///
    /// Returns [`BackendError::Invalid`] if the request is invalid for this model. Returns
    /// [`BackendError::Unsupported`] if there is a `resume_point` and the targets do not resume.
    async fn open_target(
        &self,
        request: &Arc<Request>,
        resume_point: Option<&ResumePoint>,
    ) -> Result<OpenedTarget, BackendError>;
}

/// Opens drafters.
#[async_trait]
pub trait DrafterSource: Send + Sync {
    /// Opens a drafter session for `request`.
    ///
    /// # Errors
    ///
    /// Returns a [`BackendError`] that names the party that must act.
    async fn open_drafter(&self, request: &PreparedRequest) -> Result<Box<dyn Drafter>, BackendError>;
}

/// Scores whole answers.
#[async_trait]
pub trait Scorer: Send + Sync {
    /// Scores the tokens of `answer` at the positions `range` as an answer to `request`. Returns fewer scores if the
    /// answer has fewer tokens.
    ///
    /// # Errors
    ///
    /// Returns a [`BackendError`] that names the party that must act.
    async fn score(
        &self,
        request: &Arc<Request>,
        answer: &str,
        range: Range<usize>,
    ) -> Result<Vec<TokenScore>, BackendError>;
}

/// A backend that scripts and modes share.
pub type SharedBackend = Arc<dyn Backend>;
