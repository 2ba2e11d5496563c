//! A target with drafters and the plugin that drives them: what speculation and consensus are made of.
//! Whatever the plugin does, the request is finished, by plain decoding if need be.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use tightwad_core::{
    BackendError, Drafter, Left, OpenTarget, Outcome, Output, Report, Request, SharedBackend, Sink,
    decode_to_end,
};
use tightwad_sandbox::{Loaded, PluginError, Slot};

use crate::consensus::skipping::Skipping;
use crate::decoding::component::Plugin;
use crate::decoding::job::{Job, Settled, Skipped, Tally};
use crate::decoding::totals::Totals;

/// How long a request waits for its drafters to begin.
const OPENING: Duration = Duration::from_secs(2);

pub(crate) struct Driven {
    pub target: SharedBackend,
    pub drafters: Vec<SharedBackend>,
    plugin: Arc<Slot<Plugin>>,
    /// A JSON object for the plugin.
    settings: String,
    /// What the plugin left for itself.
    memory: Arc<Mutex<String>>,
    pub totals: Arc<Totals>,
}

/// A request that was answered.
pub(crate) struct Done {
    pub outcome: Outcome,
    /// What was committed.
    pub left: Left,
    /// What is to be audited of it.
    pub audits: Vec<Skipped>,
}

impl Driven {
    pub(crate) fn new(
        target: SharedBackend,
        drafters: Vec<SharedBackend>,
        plugin: Arc<Slot<Plugin>>,
        settings: String,
    ) -> Self {
        Self { target, drafters, plugin, settings, memory: Arc::default(), totals: Arc::default() }
    }

    /// Answers a request; with `skipping`, without asking the target about everything.
    pub(crate) async fn run(
        &self,
        request: &Arc<Request>,
        sink: Sink,
        skipping: Option<Skipping>,
    ) -> Result<Done, BackendError> {
        let opened = self.open(request, &sink).await?;
        let (prompt, max_tokens) = (opened.task.prompt.clone(), opened.task.max_tokens);
        let plugin = self.plugin.current();
        let tried = plugin.breaker().allows();
        let drafters = if tried { self.open_drafters(&opened).await } else { Vec::new() };
        let present = drafters.iter().filter(|(_, drafter)| drafter.is_some());
        let names = present.map(|(name, _)| name.clone()).collect();
        let output = Output::new(&opened, sink);
        let mut job = Job::new(opened.session, drafters, output, self.settings.clone(), self.memory.clone());
        if let Some(skipping) = skipping {
            job = job.skipping(skipping);
        }
        let (job, stopped) = if tried { drive(&plugin, job).await } else { (job, None) };
        let Settled { target, mut output, mut tally, failure, audits, raced } = job.settle().await;
        self.totals.races(raced);
        if let Some(failure) = failure {
            self.totals.add(&tally, stopped.is_some());
            return Err(failure);
        }
        let mut target =
            target.ok_or_else(|| BackendError::failed(self.target.name(), "the target is lost"))?;
        let mut fallback = stopped.map(|error| error.to_string());
        if !output.is_over() {
            let reason = fallback.get_or_insert_with(|| early(plugin.label(), tried));
            tracing::warn!(request = request.id, reason, "finishing by plain decoding");
            tally.ties += decode_to_end(target.as_mut(), &mut output).await?;
        }
        self.totals.add(&tally, fallback.is_some());
        let left = Left { prompt, output: output.tokens().to_vec(), max_tokens };
        let (finish, usage) = output.end();
        let plugins = vec![plugin.entry()];
        let exact = target.is_exact();
        let report = Report { exact, drafters: names, plugins, fallback, ..report(&tally) };
        Ok(Done { outcome: Outcome { finish, usage, report }, left, audits })
    }

    /// Opens the drafters, all at once. One that cannot be opened is no reason to fail; its place stays.
    async fn open_drafters(&self, opened: &OpenTarget) -> Vec<(String, Option<Box<dyn Drafter>>)> {
        let open = |drafter: &'_ SharedBackend| {
            let (drafter, task) = (drafter.clone(), opened.task.clone());
            async move {
                let opening = async { drafter.drafter()?.open_drafter(&task).await };
                let opened = tokio::time::timeout(OPENING, opening).await;
                let (name, left_out) = (drafter.name().to_owned(), "left out of this request");
                match opened {
                    Ok(Ok(opened)) => return (name, Some(opened)),
                    Ok(Err(error)) => tracing::warn!(drafter = name, %error, left_out),
                    Err(_) => tracing::warn!(drafter = name, "too slow to begin: {left_out}"),
                }
                (name, None)
            }
        };
        join_all(self.drafters.iter().map(open)).await
    }

    async fn open(&self, request: &Arc<Request>, sink: &Sink) -> Result<OpenTarget, BackendError> {
        let target = self.target.target()?;
        tokio::select! {
            opened = target.open_target(request, None) => opened,
            () = sink.closed() => Err(BackendError::Cancelled),
        }
    }
}

/// Lets the plugin drive; why it stopped before the end, if it did.
async fn drive(plugin: &Plugin, job: Job) -> (Job, Option<PluginError>) {
    let (job, ran) = plugin.run(job).await;
    plugin.breaker().record(ran.is_ok());
    (job, ran.err())
}

/// The figures of a report.
fn report(tally: &Tally) -> Report {
    Report {
        rounds: tally.rounds,
        drafted: tally.drafted,
        accepted: tally.accepted,
        wasted: tally.wasted,
        ties: tally.ties,
        unverified: tally.unverified,
        ..Report::default()
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
