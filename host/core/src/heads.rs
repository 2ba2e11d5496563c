//! A model's own draft heads as a backend.

use std::sync::Arc;
use std::time::Duration;

use crate::backend::{Backend, DrafterSource, SharedBackend};

/// The draft heads of a model. They draft only for sessions of that model.
pub struct Heads {
    name: String,
    model: SharedBackend,
    source: Arc<dyn DrafterSource>,
}

/// The part of a pass of the model that a pass of its heads takes, before it is measured.
const ASSUMED_SHARE_OF_PASS: u32 = 8;

impl Heads {
    /// The name of the heads of the model `model`, in reports and metrics.
    #[must_use]
    pub fn name_for(model: &str) -> String {
        format!("heads({model})")
    }

    /// The assumed time of a pass of the heads of a model whose pass over one row takes `time_per_token`.
    #[must_use]
    pub fn assumed_time_per_token(time_per_token: Duration) -> Duration {
        time_per_token / ASSUMED_SHARE_OF_PASS
    }

    /// The heads of `model`; `None` if it has none.
    #[must_use]
    pub fn new(model: SharedBackend) -> Option<Self> {
        let source = model.heads()?;
        Some(Self { name: Self::name_for(model.name()), model, source })
    }
}

impl Backend for Heads {
    fn name(&self) -> &str {
        &self.name
    }

    fn vocabulary(&self) -> Option<[u8; 32]> {
        self.model.vocabulary()
    }

    fn as_drafter(&self) -> Option<&dyn DrafterSource> {
        Some(self.source.as_ref())
    }

    fn only_target(&self) -> Option<&SharedBackend> {
        Some(&self.model)
    }
}
