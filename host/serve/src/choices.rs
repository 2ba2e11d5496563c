//! The choices of one request, generated side by side.

use tightwad_core::{BackendError, Event, Outcome, Request, SharedBackend, relay};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Updates that wait for a slow client before its generations pause.
const BUFFER: usize = 64;

/// What happened to one choice.
pub(crate) enum Update {
    Event(Event),
    Done(Result<Outcome, BackendError>),
}

/// Running generations. Dropping it, which a client's leaving does, ends them at once.
pub(crate) struct Choices {
    tasks: JoinSet<()>,
    updates: mpsc::Receiver<(usize, Update)>,
    running: usize,
}

impl Choices {
    /// Starts one generation a request.
    pub(crate) fn start(backend: &SharedBackend, requests: Vec<Request>) -> Self {
        let (sender, updates) = mpsc::channel(BUFFER);
        let mut tasks = JoinSet::new();
        let running = requests.len();
        for (index, request) in requests.into_iter().enumerate() {
            tasks.spawn(generate(backend.clone(), request, index, sender.clone()));
        }
        Self { tasks, updates, running }
    }

    /// The next update, with its choice's index; `None` when all are done.
    pub(crate) async fn next(&mut self) -> Option<(usize, Update)> {
        if self.running == 0 {
            return None;
        }
        match self.updates.recv().await {
            Some((index, update)) => {
                self.running -= usize::from(matches!(update, Update::Done(_)));
                Some((index, update))
            }
            // Every sender is gone although a choice is not done: its task panicked.
            None => {
                self.running = 0;
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
    // Nobody listens any more where this fails.
    let _ = updates.send((index, Update::Done(outcome))).await;
}
