//! The choices of one request, generated in parallel.

use tightwad_core::{BackendError, Event, Outcome, Request, SharedBackend, relay};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Updates that are buffered for a slow client before its generations pause.
const UPDATE_BUFFER: usize = 64;

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
            tasks.spawn(generate(backend.clone(), request, index, sender.clone()));
        }
        Self { tasks, updates, running_count }
    }

    /// The next update with the index of its choice; `None` when all choices are done.
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

async fn generate(
    backend: SharedBackend,
    request: Request,
    index: usize,
    updates: mpsc::Sender<(usize, Update)>,
) {
    let forward = |event| {
        let sent = updates.send((index, Update::Event(event)));
        async move { sent.await.is_ok() }
    };
    let outcome = relay(backend.as_ref(), request, forward).await;
    // Sending fails only after the receiver was dropped.
    let _ = updates.send((index, Update::Done(outcome))).await;
}
