//! The steps of a decode: one message with a checksum per line.

use reqwest::Response;
use tightwad_core::BackendError;
use tightwad_net::Lines;

use crate::client::link::{CallError, Link};
use crate::protocol::calls::Step;
use crate::protocol::checksum::from_checked_json;

/// Reads the steps of a streamed reply.
pub(crate) struct StepReader(Lines);

impl StepReader {
    pub(crate) fn new(response: Response) -> Self {
        Self(Lines::new(response))
    }

    /// The next step; `None` at the end.
    pub(crate) async fn next(&mut self, link: &Link) -> Result<Option<Step>, CallError> {
        let line = match self.0.next().await {
            Ok(Some(line)) => line,
            Ok(None) => return Ok(None),
            Err(error) => return Err(link.transport_error(&error)),
        };
        let step: Step = from_checked_json(&line, true).map_err(|error| link.invalid_reply(&error))?;
        match step.error {
            Some(message) => Err(CallError::Refused(BackendError::failed(&link.name, message))),
            None => Ok(Some(step)),
        }
    }
}
