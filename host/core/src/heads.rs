//! A model's own draft heads as a backend.

use std::sync::Arc;

use crate::backend::{Backend, DrafterSource, SharedBackend};

/// The draft heads of a model. They draft only for sessions of that model.
pub struct Heads {
    name: String,
    model: SharedBackend,
    source: Arc<dyn DrafterSource>,
}

impl Heads {
    /// The heads of `model`; `None` if it has none.
    #[must_use]
    pub fn new(model: SharedBackend) -> Option<Self> {
        let source = model.heads()?;
        Some(Self { name: format!("heads({})", model.name()), model, source })
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
