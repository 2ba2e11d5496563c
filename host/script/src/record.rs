//! What was done for one request of a pipeline so far, on the script's thread and on others.

use std::sync::{Arc, Mutex, MutexGuard};

use tightwad_core::{BackendError, Finish, Outcome, Report, Usage, sync};
use tokio::sync::watch;

/// The record of one request. The script's thread and the generations that it began share it.
pub(crate) struct Record {
    facts: Mutex<Facts>,
    /// Generations that run.
    running: watch::Sender<usize>,
}

#[derive(Default)]
struct Facts {
    shown: Option<Outcome>,
    usage: Usage,
    /// Text that no model wrote was shown.
    emitted: bool,
    /// A generation began whose text goes to the client.
    showing: bool,
    error: Option<BackendError>,
}

impl Default for Record {
    fn default() -> Self {
        Self { facts: Mutex::default(), running: watch::channel(0).0 }
    }
}

impl Record {
    fn facts(&self) -> MutexGuard<'_, Facts> {
        sync::lock(&self.facts)
    }

    /// Text that no model wrote goes to the client.
    pub(crate) fn emitted(&self) {
        self.facts().emitted = true;
    }

    /// A generation begins; `shown`: its text goes to the client.
    pub(crate) fn generation_begins(&self, shown: bool) {
        self.facts().showing |= shown;
    }

    /// Counts a generation as running until the guard is dropped.
    pub(crate) fn running(self: &Arc<Self>) -> Running {
        self.running.send_modify(|running| *running += 1);
        Running(self.clone())
    }

    /// A generation ended well.
    pub(crate) fn add(&self, outcome: &Outcome, shown: bool) {
        let mut facts = self.facts();
        facts.usage.prompt_tokens += outcome.usage.prompt_tokens;
        facts.usage.completion_tokens += outcome.usage.completion_tokens;
        facts.usage.cached_tokens += outcome.usage.cached_tokens;
        if !shown {
            return;
        }
        match &mut facts.shown {
            None => facts.shown = Some(outcome.clone()),
            Some(before) => {
                before.finish = outcome.finish;
                before.report.add(&outcome.report);
            }
        }
    }

    /// A generation failed.
    pub(crate) fn failed(&self, error: &BackendError) {
        self.facts().error = Some(error.clone());
    }

    /// The last failure of a generation.
    pub(crate) fn take_error(&self) -> Option<BackendError> {
        self.facts().error.take()
    }

    /// True when the client may have got something.
    pub(crate) fn has_begun(&self) -> bool {
        let facts = self.facts();
        facts.emitted || facts.showing
    }

    /// The outcome when all generations have ended; `None` where the client got no whole answer of a model.
    pub(crate) async fn settled(&self) -> Option<Outcome> {
        // The sender lives as long as this does.
        let _ = self.running.subscribe().wait_for(|running| *running == 0).await;
        self.facts().shown.as_ref()?;
        Some(self.outcome())
    }

    /// The pipeline's outcome.
    pub(crate) fn outcome(&self) -> Outcome {
        let facts = self.facts();
        let shown = facts.shown.clone();
        let finish = shown.as_ref().map_or(Finish::Stop, |outcome| outcome.finish);
        let mut report = shown.map_or_else(Report::default, |outcome| outcome.report);
        report.mode =
            if report.mode.is_empty() { "pipeline".to_owned() } else { format!("pipeline/{}", report.mode) };
        report.exact &= !facts.emitted;
        Outcome { finish, usage: facts.usage, report }
    }
}

/// A generation that runs.
pub(crate) struct Running(Arc<Record>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.send_modify(|running| *running -= 1);
    }
}
