//! Speculation: drafters propose, the target verifies, a component decides. Exact whatever the
//! component does: tokens leave only because the target committed them.

use std::sync::Arc;

use async_trait::async_trait;
use tightwad_core::{
    Backend, BackendError, DrafterSource, Generator, Load, ModelFacts, Outcome, Request, Scorer,
    SharedBackend, Sink, TargetSource,
};
use tightwad_sandbox::{Loaded, Slot};

use crate::decoding::component::Plugin;
use crate::decoding::driven::Driven;
use crate::decoding::totals::Totals;

/// A plugin that can commit tokens without the target cannot drive speculation, which is exact.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "plugin {plugin} can commit tokens without the target, and speculation is exact: use it in tw.consensus{{}}"
)]
pub struct ApproximatePlugin {
    /// Name and version.
    pub plugin: String,
}

/// A target with drafters and the plugin that drives them.
pub struct Speculation {
    name: String,
    driven: Driven,
}

impl Speculation {
    /// Stacks `drafters` on `target`; `settings` is a JSON object that the plugin reads.
    ///
    /// # Errors
    ///
    /// [`ApproximatePlugin`], where the plugin could change the output.
    pub fn new(
        target: SharedBackend,
        drafters: Vec<SharedBackend>,
        plugin: Arc<Slot<Plugin>>,
        settings: String,
    ) -> Result<Self, ApproximatePlugin> {
        if !plugin.current().is_exact_mode() {
            return Err(ApproximatePlugin { plugin: plugin.current().label().to_owned() });
        }
        let name = format!("speculation({})", target.name());
        Ok(Self { name, driven: Driven::new(target, drafters, plugin, settings) })
    }

    /// The sums over all requests, live.
    #[must_use]
    pub fn totals(&self) -> &Arc<Totals> {
        &self.driven.totals
    }

    fn target(&self) -> &SharedBackend {
        &self.driven.target
    }
}

/// Speculation has the roles of its target: modes stack.
impl Backend for Speculation {
    fn name(&self) -> &str {
        &self.name
    }

    fn context(&self) -> Option<u32> {
        self.target().context()
    }

    fn vocabulary(&self) -> Option<[u8; 32]> {
        self.target().vocabulary()
    }

    fn facts(&self) -> Option<ModelFacts> {
        self.target().facts()
    }

    fn load(&self) -> Load {
        self.target().load()
    }

    fn as_generator(&self) -> Option<&dyn Generator> {
        if self.target().as_generator().is_some() { Some(self) } else { None }
    }

    fn as_target(&self) -> Option<&dyn TargetSource> {
        self.target().as_target()
    }

    fn as_drafter(&self) -> Option<&dyn DrafterSource> {
        self.target().as_drafter()
    }

    fn as_scorer(&self) -> Option<&dyn Scorer> {
        self.target().as_scorer()
    }
}

#[async_trait]
impl Generator for Speculation {
    async fn generate(&self, request: Request, sink: Sink) -> Result<Outcome, BackendError> {
        let mut outcome = self.driven.run(&Arc::new(request), sink, None).await?.outcome;
        outcome.report.mode = "speculation".to_owned();
        Ok(outcome)
    }
}
