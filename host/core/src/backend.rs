//! A backend runs a model, or stacks on another backend.
//!
//! A backend offers roles: it generates, verifies, drafts or scores. A script that needs a missing role is refused when
//! it is loaded.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::mpsc;

use crate::error::BackendError;
use crate::event::{Event, Outcome};
use crate::facts::{Load, ModelFacts};
use crate::request::Request;
use crate::session::{Drafter, Left, OpenTarget, Task, Tokenizer};
use crate::tokens::Scored;

/// Receives the events of one request. A closed channel means that the client left: backends stop.
pub type Sink = mpsc::Sender<Event>;

/// A backend; shared by all requests.
pub trait Backend: Send + Sync {
    /// The name used in reports, logs and metrics.
    fn name(&self) -> &str;

    /// A digest of the vocabulary: two backends exchange token ids only when theirs are equal.
    /// `None`: works on any vocabulary (lookup), or has no tokens of its own.
    fn vocabulary(&self) -> Option<[u8; 32]> {
        None
    }

    /// What another machine must know of the model; `None`: there is no single one.
    fn facts(&self) -> Option<ModelFacts> {
        None
    }

    /// Tokens that prompt and answer may have together; `None`: it depends, or is not known.
    fn context(&self) -> Option<u32> {
        self.facts().map(|facts| facts.context)
    }

    /// How busy it is.
    fn load(&self) -> Load {
        Load::default()
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

    /// The role that scores answers; `None`: the backend lacks it.
    fn as_scorer(&self) -> Option<&dyn Scorer> {
        None
    }

    /// The role that answers requests.
    ///
    /// # Errors
    ///
    /// [`BackendError::Unsupported`] where the backend lacks the role.
    fn generator(&self) -> Result<&dyn Generator, BackendError> {
        self.as_generator().ok_or_else(|| BackendError::unsupported(self.name(), "generate"))
    }

    /// The role that opens targets.
    ///
    /// # Errors
    ///
    /// [`BackendError::Unsupported`] where the backend lacks the role.
    fn target(&self) -> Result<&dyn TargetSource, BackendError> {
        self.as_target().ok_or_else(|| BackendError::unsupported(self.name(), "verify"))
    }

    /// The role that opens drafters.
    ///
    /// # Errors
    ///
    /// [`BackendError::Unsupported`] where the backend lacks the role.
    fn drafter(&self) -> Result<&dyn DrafterSource, BackendError> {
        self.as_drafter().ok_or_else(|| BackendError::unsupported(self.name(), "propose"))
    }

    /// The role that scores answers.
    ///
    /// # Errors
    ///
    /// [`BackendError::Unsupported`] where the backend lacks the role.
    fn scorer(&self) -> Result<&dyn Scorer, BackendError> {
        self.as_scorer().ok_or_else(|| BackendError::unsupported(self.name(), "score"))
    }
}

/// Answers whole requests.
#[async_trait]
pub trait Generator: Send + Sync {
    /// Answers a whole request; events go to `sink` as they become final.
    ///
    /// # Errors
    ///
    /// [`BackendError`] says whose fault it is and what to do.
    async fn generate(&self, request: Request, sink: Sink) -> Result<Outcome, BackendError>;
}

/// Opens targets, which modes drive.
#[async_trait]
pub trait TargetSource: Send + Sync {
    /// True when the targets verify drafts. A recurrent state cannot be rolled back: a target with one only decodes.
    fn verifies(&self) -> bool {
        true
    }

    /// True when the targets continue after tokens that they did not choose, such as tokens of another target.
    fn resumes(&self) -> bool {
        false
    }

    /// The tokenizer of the vocabulary; `None`: the vocabulary is not known.
    fn tokenizer(&self) -> Option<Arc<dyn Tokenizer>> {
        None
    }

    /// Reads a request without opening anything: renders and tokenizes its prompt.
    ///
    /// # Errors
    ///
    /// [`BackendError::Invalid`] where the request cannot be read, [`BackendError::Unsupported`]
    /// where the backend has no tokens.
    async fn read(&self, request: &Arc<Request>) -> Result<Task, BackendError>;

    /// Opens a target's session; with `left`, the session continues from there.
    ///
    /// # Errors
    ///
    /// [`BackendError::Invalid`] where the request cannot be read, [`BackendError::Unsupported`] where `left` is given
    /// and the target does not resume. Other errors say whose fault the failure is.
    async fn open_target(
        &self,
        request: &Arc<Request>,
        left: Option<&Left>,
    ) -> Result<OpenTarget, BackendError>;
}

/// Opens drafters.
#[async_trait]
pub trait DrafterSource: Send + Sync {
    /// Opens a drafter's session.
    ///
    /// # Errors
    ///
    /// [`BackendError`] says whose fault it is and what to do.
    async fn open_drafter(&self, task: &Task) -> Result<Box<dyn Drafter>, BackendError>;
}

/// Scores whole answers.
#[async_trait]
pub trait Scorer: Send + Sync {
    /// Scores `answer` as an answer to `request`, token by token: the `part` of its tokens, by number. Fewer
    /// scores than asked for: the answer ends there.
    ///
    /// # Errors
    ///
    /// [`BackendError`] says whose fault it is and what to do.
    async fn score(
        &self,
        request: &Arc<Request>,
        answer: &str,
        part: Range<usize>,
    ) -> Result<Vec<Scored>, BackendError>;
}

/// A backend as scripts and modes hold it.
pub type SharedBackend = Arc<dyn Backend>;
