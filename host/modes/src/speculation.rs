//! Speculation: drafters propose, the target verifies, and a component decides when. Speculation is exact for every
//! component, because only the target commits tokens.

use std::sync::Arc;

use async_trait::async_trait;
use tightwad_core::{
    Backend, BackendError, DrafterSource, Generator, Health, Load, ModelFacts, Outcome, Request, Scorer,
    SharedBackend, Sink, TargetSource,
};
use tightwad_sandbox::{Plugin, ReloadablePlugin};

use crate::decoding::component::ModeDriver;
use crate::decoding::driven_target::DrivenTarget;
use crate::decoding::totals::Totals;
use crate::settings::Settings;

/// A driver that can commit tokens without the target. Speculation is exact, so it cannot use the driver.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "plugin {plugin} can commit tokens without the target, but speculation is exact. Use the plugin in tw.consensus{{}}."
)]
pub struct ApproximateDriver {
    /// The plugin's name and version.
    pub plugin: String,
}

/// A target with drafters and a driver.
pub struct Speculation {
    name: String,
    driven: DrivenTarget,
}

impl Speculation {
    /// Stacks `drafters` on `target`. The driver reads `settings`.
    ///
    /// # Errors
    ///
    /// Returns [`ApproximateDriver`] if the driver can change the output.
    pub fn new(
        target: SharedBackend,
        drafters: Vec<SharedBackend>,
        driver: Arc<ReloadablePlugin<ModeDriver>>,
        settings: Settings,
    ) -> Result<Self, ApproximateDriver> {
        if !driver.current().is_exact_mode() {
            return Err(ApproximateDriver { plugin: driver.current().label().to_owned() });
        }
        let name = format!("speculation({})", target.name());
        Ok(Self { name, driven: DrivenTarget::new(target, drafters, driver, settings) })
    }

    /// The live totals of all requests.
    #[must_use]
    pub fn totals(&self) -> &Arc<Totals> {
        &self.driven.totals
    }

    fn target(&self) -> &SharedBackend {
        &self.driven.target
    }
}

/// Speculation has the roles of its target, so modes can be stacked.
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

    fn health(&self) -> Health {
        self.target().health()
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
