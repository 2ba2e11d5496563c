//! The steps of a decode as they arrive: one sealed message a line.

use reqwest::Response;

use super::link::{Fault, Link};
use crate::backend::BackendError;
use crate::backend::lines::Lines;
use crate::types::node::{Step, unseal};

/// A response that is read step by step.
pub(super) struct Steps(Lines);

impl Steps {
    pub(super) fn new(response: Response) -> Self {
        Self(Lines::new(response))
    }

    /// The next step; `None` at the end.
    pub(super) async fn next(&mut self, link: &Link) -> Result<Option<Step>, Fault> {
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
