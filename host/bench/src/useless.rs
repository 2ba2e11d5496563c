//! The worst drafter there is: confident, free, and always wrong.

use async_trait::async_trait;
use tightwad_core::{
    Backend, BackendError, Drafter, DrafterSource, Expected, Processor, Proposal, Task, TokenId,
};

/// Proposes nonsense.
pub(crate) struct Useless;

impl Backend for Useless {
    fn name(&self) -> &str {
        "useless"
    }

    fn as_drafter(&self) -> Option<&dyn DrafterSource> {
        Some(self)
    }
}

#[async_trait]
impl DrafterSource for Useless {
    async fn open_drafter(&self, _task: &Task) -> Result<Box<dyn Drafter>, BackendError> {
        Ok(Box::new(Self))
    }
}

#[async_trait]
impl Drafter for Useless {
    fn name(&self) -> &str {
        "useless"
    }

    fn processor(&self) -> Processor {
        Processor::Nothing
    }

    fn expected(&self) -> Expected {
        Expected::default()
    }

    async fn propose(
        &mut self,
        output: &[TokenId],
        max: u32,
        _min_probability: f32,
    ) -> Result<Vec<Proposal>, BackendError> {
        let first = output.len() as u32 % 997;
        Ok((0..max).map(|offset| Proposal { token: 1000 + first + offset, probability: 0.95 }).collect())
    }
}
