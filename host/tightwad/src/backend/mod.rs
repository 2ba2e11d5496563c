//! Something that runs a model, or stacks on something that does.
//!
//! What a backend can do is a set of capabilities, checked when a script is loaded.

mod capabilities;
mod error;
mod llama;
mod lookup;
mod output;
mod relay;
mod session;

pub use capabilities::Capabilities;
pub use error::BackendError;
pub use llama::Llama;
pub use lookup::Lookup;
pub use output::{Output, decode_to_end};
pub use relay::relay;
pub use session::{Committed, DecodeStream, Drafter, Expected, OpenTarget, Pass, Proposal, Target, Verified};

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::mpsc;

use crate::types::{Event, Outcome, Request};

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

    /// Answers a whole request; events go to `sink` as they become final.
    ///
    /// # Errors
    ///
    /// [`BackendError`] says whose fault it is and what to do.
    async fn generate(&self, request: Request, sink: Sink) -> Result<Outcome, BackendError>;

    /// Opens a session that verifies, for a mode to drive.
    ///
    /// # Errors
    ///
    /// [`BackendError::Unsupported`] where [`Capabilities::VERIFY`] is missing.
    async fn open_target(&self, _request: &Request) -> Result<OpenTarget, BackendError> {
        Err(BackendError::unsupported(self.name(), "verify"))
    }

    /// Opens a session that proposes, for the prompt and settings of `target`.
    ///
    /// # Errors
    ///
    /// [`BackendError::Unsupported`] where [`Capabilities::PROPOSE`] is missing.
    async fn open_drafter(&self, _target: &OpenTarget) -> Result<Box<dyn Drafter>, BackendError> {
        Err(BackendError::unsupported(self.name(), "propose"))
    }
}

/// A backend as scripts and modes hold it.
pub type SharedBackend = Arc<dyn Backend>;
