//! The worst possible drafter: its proposals cost nothing, look probable, and are wrong.

use async_trait::async_trait;
use tightwad_core::{
    Backend, BackendError, Device, DraftCost, Drafter, DrafterSource, PreparedRequest, Proposal, TokenId,
};

/// Proposes wrong tokens with high confidence.
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
    async fn open_drafter(&self, _task: &PreparedRequest) -> Result<Box<dyn Drafter>, BackendError> {
        Ok(Box::new(Self))
    }
}

#[async_trait]
impl Drafter for Useless {
    fn name(&self) -> &str {
        "useless"
    }

    fn device(&self) -> Device {
        Device::None
    }

    fn expected_cost(&self) -> DraftCost {
        DraftCost::default()
    }

    async fn propose(
        &mut self,
        output: &[TokenId],
        max_tokens: u32,
        _min_probability: f32,
    ) -> Result<Vec<Proposal>, BackendError> {
        let token_offset = output.len() as u32 % 997;
        Ok((0..max_tokens)
            .map(|offset| Proposal { token: 1000 + token_offset + offset, probability: 0.95 })
            .collect())
    }
}
