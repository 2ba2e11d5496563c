//! The steps of a decode: one message with a checksum per line. An empty line keeps the connection alive.

use tightwad_core::BackendError;
use tightwad_net::{Lines, Reply, excerpt};

use crate::client::link::{CallError, Link};
use crate::protocol::calls::Step;
use crate::protocol::checksum::from_checked_json;

/// The longest line of a decode in bytes.
const MAX_STEP_BYTES: usize = 1 << 20;

/// Reads the steps of a streamed reply.
pub(crate) struct StepReader(Lines);

impl StepReader {
    pub(crate) fn new(reply: Reply) -> Self {
        Self(Lines::new(reply, MAX_STEP_BYTES))
    }

    /// The next step; `None` at the end.
    pub(crate) async fn next(&mut self, link: &Link) -> Result<Option<Step>, CallError> {
        loop {
            let line = match self.0.next().await {
                Ok(Some(line)) => line,
                Ok(None) => return Ok(None),
                Err(error) => return Err(link.transport_error(&error)),
            };
            if line.is_empty() {
                continue;
            }
            let step: Step = from_checked_json(&line, true).map_err(|error| link.invalid_reply(&error))?;
            return match step.error {
                Some(message) => {
                    Err(CallError::Refused(BackendError::failed(&link.name, excerpt(&message, None))))
                }
                None => Ok(Some(step)),
            };
        }
    }
}
