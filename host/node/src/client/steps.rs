//! The steps of a decode as they arrive: one sealed message a line.

use reqwest::Response;
use tightwad_core::BackendError;
use tightwad_net::Lines;

use crate::client::link::{Fault, Link};
use crate::protocol::calls::Step;
use crate::protocol::seal::unseal;

/// A response that is read step by step.
pub(crate) struct Steps(Lines);

impl Steps {
    pub(crate) fn new(response: Response) -> Self {
        Self(Lines::new(response))
    }

    /// The next step; `None` at the end.
    pub(crate) async fn next(&mut self, link: &Link) -> Result<Option<Step>, Fault> {
        let line = match self.0.next().await {
            Ok(Some(line)) => line,
            Ok(None) => return Ok(None),
            Err(reason) => return Err(link.lost(&reason)),
        };
        let step: Step = unseal(&line, true).map_err(|error| link.garbled(&error))?;
        match step.error {
            Some(message) => Err(Fault::Refused(BackendError::failed(&link.name, message))),
            None => Ok(Some(step)),
        }
    }
}
