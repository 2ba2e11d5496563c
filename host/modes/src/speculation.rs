//! Speculation: drafters propose, the target verifies, a component decides. Exact whatever the
//! component does: tokens leave only because the target committed them.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use tightwad_core::{
    Backend, BackendError, Capabilities, Drafter, Left, Load, ModelFacts, OpenTarget, Outcome, Request,
    Scored, SharedBackend, Sink, Task, Tokenizer,
};
use tightwad_sandbox::{Loaded, Slot};

use crate::decoding::component::Plugin;
use crate::decoding::driven::Driven;
use crate::decoding::totals::Totals;

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
    /// A sentence, where the plugin is one that could change the output.
    pub fn new(
        target: SharedBackend,
        drafters: Vec<SharedBackend>,
        plugin: Arc<Slot<Plugin>>,
        settings: String,
    ) -> Result<Self, String> {
        if !plugin.current().is_exact_mode() {
            let label = plugin.current().label().to_owned();
            return Err(format!(
                "plugin {label} can commit tokens without the target, and speculation is exact: use it in tw.consensus{{}}"
            ));
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

#[async_trait]
impl Backend for Speculation {
    fn name(&self) -> &str {
        &self.name
    }

    fn context(&self) -> Option<u32> {
        self.target().context()
    }

    /// What its target can do: modes stack.
    fn capabilities(&self) -> Capabilities {
        self.target().capabilities()
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

    fn tokenizer(&self) -> Option<Arc<dyn Tokenizer>> {
        self.target().tokenizer()
    }

    async fn generate(&self, request: Request, sink: Sink) -> Result<Outcome, BackendError> {
        let mut outcome = self.driven.run(&Arc::new(request), sink, None).await?.outcome;
        outcome.report.mode = "speculation".to_owned();
        Ok(outcome)
    }

    async fn read(&self, request: &Arc<Request>) -> Result<Task, BackendError> {
        self.target().read(request).await
    }

    async fn open_target(
        &self,
        request: &Arc<Request>,
        left: Option<&Left>,
    ) -> Result<OpenTarget, BackendError> {
        self.target().open_target(request, left).await
    }

    async fn open_drafter(&self, task: &Task) -> Result<Box<dyn Drafter>, BackendError> {
        self.target().open_drafter(task).await
    }

    async fn score(
        &self,
        request: &Arc<Request>,
        answer: &str,
        part: Range<usize>,
    ) -> Result<Vec<Scored>, BackendError> {
        self.target().score(request, answer, part).await
    }
}
