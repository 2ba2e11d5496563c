//! The choices of one request, generated in parallel.

use std::time::Duration;

use tightwad_core::{BackendError, Event, Outcome, Request, SharedBackend, relay};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::task::JoinSet;
use tracing::Instrument;

/// Updates that are buffered for a slow client before its generations pause.
const UPDATE_BUFFER: usize = 64;
/// The time that a generation pauses for a client. Then it ends, so that its slot serves other clients.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);

/// Progress of one choice.
pub(crate) enum Update {
    Event(Event),
    Done(Result<Outcome, BackendError>),
}

/// The running generations of a request. Dropping it, for example when the client disconnects, cancels the
/// generations immediately.
pub(crate) struct Choices {
    tasks: JoinSet<()>,
    updates: mpsc::Receiver<(usize, Update)>,
    running_count: usize,
}

impl Choices {
    /// Starts one generation per request.
    pub(crate) fn start(backend: &SharedBackend, requests: Vec<Request>) -> Self {
        let (sender, updates) = mpsc::channel(UPDATE_BUFFER);
        let mut tasks = JoinSet::new();
        let running_count = requests.len();
        for (index, request) in requests.into_iter().enumerate() {
            let updates = UpdateSender { index, updates: sender.clone() };
            tasks.spawn(generate(backend.clone(), request, updates).in_current_span());
        }
        Self { tasks, updates, running_count }
    }

    /// The next update with the index of its choice; `None` when all choices are done. Dropping the future loses no
    /// update.
    pub(crate) async fn next(&mut self) -> Option<(usize, Update)> {
        if self.running_count == 0 {
            return None;
        }
        match self.updates.recv().await {
            Some((index, update)) => {
                self.running_count -= usize::from(matches!(update, Update::Done(_)));
                Some((index, update))
            }
            // All senders were dropped before all choices were done: a task panicked.
            None => {
                self.running_count = 0;
                self.tasks.abort_all();
                Some((0, Update::Done(Err(BackendError::failed("the server", "a generation crashed")))))
            }
        }
    }
}

/// Sends the updates of one choice.
struct UpdateSender {
    index: usize,
    updates: mpsc::Sender<(usize, Update)>,
}

impl UpdateSender {
    /// Sends an event. Returns false if the client has disconnected or does not read.
    async fn send_event(&self, event: Event) -> bool {
        match self.updates.try_send((self.index, Update::Event(event))) {
            Ok(()) => true,
            Err(TrySendError::Closed(_)) => false,
            Err(TrySendError::Full(update)) => self.updates.send_timeout(update, STALL_TIMEOUT).await.is_ok(),
        }
    }

    /// Sends the end of the choice. The generation has ended, so the client can take any time to read it.
    async fn send_end(&self, outcome: Result<Outcome, BackendError>) {
        // Sending fails only after the receiver was dropped.
        let _ = self.updates.send((self.index, Update::Done(outcome))).await;
    }
}

async fn generate(backend: SharedBackend, request: Request, updates: UpdateSender) {
    let outcome = relay(backend.as_ref(), request, |event| updates.send_event(event)).await;
    let outcome = outcome.map_err(|error| match error {
        BackendError::Cancelled if !updates.updates.is_closed() => {
            let message = format!("the client read nothing for {} s", STALL_TIMEOUT.as_secs());
            BackendError::failed("the stream", message)
        }
        other => other,
    });
    updates.send_end(outcome).await;
}
