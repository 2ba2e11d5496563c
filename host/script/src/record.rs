//! The record of one pipeline request. The script's thread and the runtime's threads share it.

use std::sync::{Arc, Mutex, MutexGuard};

use tightwad_core::{BackendError, FinishReason, Outcome, Report, Usage, sync};
use tokio::sync::watch;

/// Collects the usage, the outcome and the errors of all generations of one request.
pub(crate) struct Record {
    state: Mutex<State>,
    /// The number of running generations.
    running: watch::Sender<usize>,
}

#[derive(Default)]
struct State {
    /// The outcome of the streamed generations.
    streamed: Option<Outcome>,
    usage: Usage,
    /// True if the client got text that no backend generated.
    emitted: bool,
    /// True if a streamed generation has started.
    streaming: bool,
    error: Option<BackendError>,
}

impl Default for Record {
    fn default() -> Self {
        Self { state: Mutex::default(), running: watch::channel(0).0 }
    }
}

impl Record {
    fn state(&self) -> MutexGuard<'_, State> {
        sync::lock(&self.state)
    }

    /// Records that the client gets text that no backend generated.
    pub(crate) fn add_emitted(&self) {
        self.state().emitted = true;
    }

    /// Records the start of a generation. `stream`: its text goes to the client.
    pub(crate) fn start_generation(&self, stream: bool) {
        self.state().streaming |= stream;
    }

    /// Counts a generation as running until the guard is dropped.
    pub(crate) fn running_guard(self: &Arc<Self>) -> RunningGuard {
        self.running.send_modify(|running| *running += 1);
        RunningGuard(self.clone())
    }

    /// Records the outcome of a generation.
    pub(crate) fn add_outcome(&self, outcome: &Outcome, stream: bool) {
        let mut state = self.state();
        state.usage.prompt_tokens += outcome.usage.prompt_tokens;
        state.usage.completion_tokens += outcome.usage.completion_tokens;
        state.usage.cached_tokens += outcome.usage.cached_tokens;
        if !stream {
            return;
        }
        match &mut state.streamed {
            None => state.streamed = Some(outcome.clone()),
            Some(total) => {
                total.finish_reason = outcome.finish_reason;
                total.report.add(&outcome.report);
            }
        }
    }

    /// Records the failure of a generation.
    pub(crate) fn add_error(&self, error: &BackendError) {
        self.state().error = Some(error.clone());
    }

    /// Removes and returns the last failure of a generation.
    pub(crate) fn take_error(&self) -> Option<BackendError> {
        self.state().error.take()
    }

    /// True if the client may have received text.
    pub(crate) fn has_begun(&self) -> bool {
        let state = self.state();
        state.emitted || state.streaming
    }

    /// True if a streamed generation succeeded, or the client got other text.
    pub(crate) fn has_answer(&self) -> bool {
        let state = self.state();
        state.emitted || state.streamed.is_some()
    }

    /// Waits until all generations end. Returns `None` if no streamed generation succeeded.
    pub(crate) async fn outcome_when_idle(&self) -> Option<Outcome> {
        // The wait cannot fail: the sender lives as long as `self`.
        let _ = self.running.subscribe().wait_for(|running| *running == 0).await;
        self.state().streamed.as_ref()?;
        Some(self.outcome())
    }

    /// The outcome of the pipeline.
    pub(crate) fn outcome(&self) -> Outcome {
        let state = self.state();
        let streamed = state.streamed.clone();
        let finish_reason = streamed.as_ref().map_or(FinishReason::Stop, |outcome| outcome.finish_reason);
        let mut report = streamed.map_or_else(Report::default, |outcome| outcome.report);
        report.mode =
            if report.mode.is_empty() { "pipeline".to_owned() } else { format!("pipeline/{}", report.mode) };
        report.exact &= !state.emitted;
        Outcome { finish_reason, usage: state.usage, report }
    }
}

/// Counts one generation as running.
pub(crate) struct RunningGuard(Arc<Record>);

impl Drop for RunningGuard {
    fn drop(&mut self) {
        self.0.running.send_modify(|running| *running -= 1);
    }
}
