//! Speculation: drafters propose, the target verifies, a component decides. Exact whatever the
//! component does: tokens leave only because the target committed them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;

use super::health::Health;
use crate::backend::{
    Backend, BackendError, Capabilities, Drafter, Left, OpenTarget, Output, Scored, SharedBackend, Sink,
    Task, Tokenizer, decode_to_end,
};
use crate::plugin::{Job, Plugin, PluginError, Tally};
use crate::types::{Load, ModelFacts, Outcome, Report, Request};

/// Sums over all requests, for metrics.
#[derive(Debug, Default)]
pub struct Totals {
    /// Verifications of at least one proposal.
    pub rounds: AtomicU64,
    /// Proposals verified.
    pub drafted: AtomicU64,
    /// Proposals committed.
    pub accepted: AtomicU64,
    /// Proposals that were never verified.
    pub wasted: AtomicU64,
    /// Requests finished by plain decoding because the plugin failed.
    pub fallbacks: AtomicU64,
}

/// How long a request waits for a drafter to begin.
const OPENING: Duration = Duration::from_secs(2);

/// A target with drafters and the plugin that drives them.
pub struct Speculation {
    name: String,
    target: SharedBackend,
    drafters: Vec<SharedBackend>,
    plugin: Arc<Plugin>,
    /// A JSON object for the plugin.
    settings: String,
    /// What the plugin left for itself.
    memory: Arc<Mutex<String>>,
    health: Health,
    totals: Arc<Totals>,
}

impl Speculation {
    /// Stacks `drafters` on `target`; `settings` is a JSON object that the plugin reads.
    #[must_use]
    pub fn new(
        target: SharedBackend,
        drafters: Vec<SharedBackend>,
        plugin: Arc<Plugin>,
        settings: String,
    ) -> Self {
        let name = format!("speculation({})", target.name());
        Self {
            name,
            target,
            drafters,
            plugin,
            settings,
            memory: Arc::default(),
            health: Health::default(),
            totals: Arc::default(),
        }
    }

    /// The sums, live.
    #[must_use]
    pub fn totals(&self) -> &Arc<Totals> {
        &self.totals
    }

    /// Opens the drafters that can be opened: one that cannot is no reason to fail.
    async fn open_drafters(&self, opened: &OpenTarget) -> Vec<Box<dyn Drafter>> {
        let mut drafters = Vec::new();
        for drafter in &self.drafters {
            match tokio::time::timeout(OPENING, drafter.open_drafter(&opened.task)).await {
                Ok(Ok(drafter)) => drafters.push(drafter),
                Ok(Err(error)) => {
                    tracing::warn!(drafter = drafter.name(), %error, "left out of this request")
                }
                Err(_) => {
                    tracing::warn!(drafter = drafter.name(), "too slow to begin: left out of this request")
                }
            }
        }
        drafters
    }

    /// Lets the plugin drive; returns why it was left before the end, if it was.
    async fn drive(&self, job: Job) -> Result<(Job, Option<PluginError>), BackendError> {
        let (job, outcome) =
            self.plugin.run(job).await.ok_or_else(|| BackendError::failed(&self.name, "the job is lost"))?;
        self.health.note(outcome.is_ok());
        Ok((job, outcome.err()))
    }

    fn report(&self, tally: Tally, exact: bool, drafters: Vec<String>, fallback: Option<String>) -> Report {
        for (sum, value) in [
            (&self.totals.rounds, tally.rounds),
            (&self.totals.drafted, tally.drafted),
            (&self.totals.accepted, tally.accepted),
            (&self.totals.wasted, tally.wasted),
            (&self.totals.fallbacks, u32::from(fallback.is_some())),
        ] {
            sum.fetch_add(u64::from(value), Ordering::Relaxed);
        }
        Report {
            mode: "speculation".to_owned(),
            exact,
            rounds: tally.rounds,
            drafted: tally.drafted,
            accepted: tally.accepted,
            wasted: tally.wasted,
            ties: tally.ties,
            drafters,
            plugins: vec![(self.plugin.label().to_owned(), self.plugin.sha256().to_owned())],
            fallback,
        }
    }

    async fn open(&self, request: &Arc<Request>, sink: &Sink) -> Result<OpenTarget, BackendError> {
        tokio::select! {
            opened = self.target.open_target(request, None) => opened,
            () = sink.closed() => Err(BackendError::Cancelled),
        }
    }
}

#[async_trait]
impl Backend for Speculation {
    fn name(&self) -> &str {
        &self.name
    }

    /// What its target can do: modes stack.
    fn capabilities(&self) -> Capabilities {
        self.target.capabilities()
    }

    fn vocabulary(&self) -> Option<[u8; 32]> {
        self.target.vocabulary()
    }

    fn facts(&self) -> Option<ModelFacts> {
        self.target.facts()
    }

    fn load(&self) -> Load {
        self.target.load()
    }

    fn tokenizer(&self) -> Option<Arc<dyn Tokenizer>> {
        self.target.tokenizer()
    }

    async fn generate(&self, request: Request, sink: Sink) -> Result<Outcome, BackendError> {
        let request = Arc::new(request);
        let opened = self.open(&request, &sink).await?;
        let tried = self.health.allows();
        let drafters = if tried { self.open_drafters(&opened).await } else { Vec::new() };
        let names = drafters.iter().map(|drafter| drafter.name().to_owned()).collect();
        let output = Output::new(&opened, sink);
        let job = Job::new(opened.session, drafters, output, self.settings.clone(), self.memory.clone());
        let (job, stopped) = if tried { self.drive(job).await? } else { (job, None) };
        let (target, mut output, mut tally, failure) = job.settle().await;
        if let Some(failure) = failure {
            return Err(failure);
        }
        let mut target = target.ok_or_else(|| BackendError::failed(&self.name, "the target is lost"))?;
        let mut fallback = stopped.map(|error| error.to_string());
        if !output.is_over() {
            let reason = fallback.get_or_insert_with(|| early(self.plugin.label(), tried));
            tracing::warn!(request = request.id, reason, "finishing by plain decoding");
            tally.ties += decode_to_end(target.as_mut(), &mut output).await?;
        }
        let (finish, usage) = output.end();
        Ok(Outcome { finish, usage, report: self.report(tally, target.is_exact(), names, fallback) })
    }

    async fn read(&self, request: &Arc<Request>) -> Result<Task, BackendError> {
        self.target.read(request).await
    }

    async fn open_target(
        &self,
        request: &Arc<Request>,
        left: Option<&Left>,
    ) -> Result<OpenTarget, BackendError> {
        self.target.open_target(request, left).await
    }

    async fn open_drafter(&self, task: &Task) -> Result<Box<dyn Drafter>, BackendError> {
        self.target.open_drafter(task).await
    }

    async fn score(&self, request: &Arc<Request>, answer: &str) -> Result<Vec<Scored>, BackendError> {
        self.target.score(request, answer).await
    }
}

/// Why a request is not over although nothing went wrong.
fn early(plugin: &str, tried: bool) -> String {
    if !tried {
        format!("plugin {plugin} failed too often and is left alone for a while")
    } else {
        format!("plugin {plugin} returned before the target was finished")
    }
}
