//! Something that runs a model, or stacks on something that does.
//!
//! What a backend can do is a set of capabilities, checked when a script is loaded.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::mpsc;

use crate::capabilities::Capabilities;
use crate::error::BackendError;
use crate::event::{Event, Outcome};
use crate::facts::{Load, ModelFacts};
use crate::request::Request;
use crate::session::{Drafter, Left, OpenTarget, Task, Tokenizer};
use crate::tokens::Scored;

/// Receives the events of one request. A closed channel means that the client left: backends stop.
pub type Sink = mpsc::Sender<Event>;

/// A backend; shared by all requests.
#[async_trait]
pub trait Backend: Send + Sync {
    /// The name used in reports, logs and metrics.
    fn name(&self) -> &str;

    /// What this backend can do.
    fn capabilities(&self) -> Capabilities;

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

    /// The vocabulary at work, where there is one.
    fn tokenizer(&self) -> Option<Arc<dyn Tokenizer>> {
        None
    }

    /// Answers a whole request; events go to `sink` as they become final.
    ///
    /// # Errors
    ///
    /// [`BackendError`] says whose fault it is and what to do.
    async fn generate(&self, request: Request, sink: Sink) -> Result<Outcome, BackendError>;

    /// Reads a request without opening anything: renders and tokenizes its prompt.
    ///
    /// # Errors
    ///
    /// [`BackendError::Invalid`] where the request cannot be read, [`BackendError::Unsupported`]
    /// where the backend has no tokens.
    async fn read(&self, _request: &Arc<Request>) -> Result<Task, BackendError> {
        Err(BackendError::unsupported(self.name(), "read tokens"))
    }

    /// Opens a session that verifies, for a mode to drive; with `left`, from where another was left.
    ///
    /// # Errors
    ///
    /// [`BackendError::Unsupported`] where [`Capabilities::VERIFY`] is missing.
    async fn open_target(
        &self,
        _request: &Arc<Request>,
        _left: Option<&Left>,
    ) -> Result<OpenTarget, BackendError> {
        Err(BackendError::unsupported(self.name(), "verify"))
    }

    /// Opens a session that proposes.
    ///
    /// # Errors
    ///
    /// [`BackendError::Unsupported`] where [`Capabilities::PROPOSE`] is missing.
    async fn open_drafter(&self, _task: &Task) -> Result<Box<dyn Drafter>, BackendError> {
        Err(BackendError::unsupported(self.name(), "propose"))
    }

    /// Scores `answer` as an answer to `request`, token by token: the `part` of its tokens, by number. Fewer
    /// scores than asked for: the answer ends there.
    ///
    /// # Errors
    ///
    /// [`BackendError::Unsupported`] where [`Capabilities::SCORE`] is missing.
    async fn score(
        &self,
        _request: &Arc<Request>,
        _answer: &str,
        _part: Range<usize>,
    ) -> Result<Vec<Scored>, BackendError> {
        Err(BackendError::unsupported(self.name(), "score"))
    }
}

/// A backend as scripts and modes hold it.
pub type SharedBackend = Arc<dyn Backend>;
