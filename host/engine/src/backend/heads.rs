//! The draft heads of a model of this process as a drafter.

use std::sync::Arc;

use async_trait::async_trait;
use tightwad_core::{
    BackendError, Device, DraftCost, Drafter, DrafterSource, Heads, PreparedRequest, Proposal, TokenId,
};

use crate::backend::session::{backend_error, device};
use crate::engine::Engine;

/// Opens drafters that use the heads of a model for sessions of the same model.
#[derive(Clone)]
pub(crate) struct LlamaHeads {
    name: Arc<str>,
    engine: Engine,
}

impl LlamaHeads {
    /// The heads of `engine`, which see each prompt from now on. `None` if it has none.
    pub(crate) fn new(name: &str, engine: &Engine) -> Option<Self> {
        engine.enable_heads();
        let has_heads = engine.weights().head_count() > 0;
        has_heads.then(|| Self { name: Heads::name_for(name).into(), engine: engine.clone() })
    }
}

#[async_trait]
impl DrafterSource for LlamaHeads {
    async fn open_drafter(&self, prepared: &PreparedRequest) -> Result<Box<dyn Drafter>, BackendError> {
        Ok(Box::new(HeadDrafter { heads: self.clone(), prompt: prepared.prompt.clone() }))
    }
}

/// Drafts for one request.
struct HeadDrafter {
    heads: LlamaHeads,
    prompt: Arc<[TokenId]>,
}

#[async_trait]
impl Drafter for HeadDrafter {
    fn name(&self) -> &str {
        &self.heads.name
    }

    fn device(&self) -> Device {
        device(&self.heads.engine)
    }

    fn expected_cost(&self) -> DraftCost {
        let time_per_token = Heads::assumed_time_per_token(self.heads.engine.stats().time_per_token());
        DraftCost { time_per_token, ..DraftCost::default() }
    }

    async fn propose(
        &mut self,
        output: &[TokenId],
        max: u32,
        min_probability: f32,
    ) -> Result<Vec<Proposal>, BackendError> {
        let engine = &self.heads.engine;
        let proposed = engine.propose_with_heads(self.prompt.clone(), output.to_vec(), max, min_probability);
        proposed.await.map_err(|error| backend_error(&self.heads.name, error))
    }
}
