//! Runs a generation and relays its events.

use std::pin::pin;

use tokio::sync::mpsc;

use crate::backend::Backend;
use crate::error::BackendError;
use crate::event::{Event, Outcome};
use crate::request::Request;

/// The number of events that wait for a slow reader before the generation pauses.
const MAX_PENDING_EVENTS: usize = 64;

/// Generates an answer with `backend` and calls `on_event` with each event, until `on_event` returns false.
///
/// The answer ends when the backend returns, even if a copy of its sink is still open.
///
/// # Errors
///
/// Returns the backend's error, or [`BackendError::Cancelled`] if `on_event` returned false.
pub async fn relay<F>(
    backend: &dyn Backend,
    request: Request,
    mut on_event: impl FnMut(Event) -> F,
) -> Result<Outcome, BackendError>
where
    F: Future<Output = bool>,
{
    let (sink, mut events) = mpsc::channel(MAX_PENDING_EVENTS);
    let mut generating = pin!(backend.generator()?.generate(request, sink));
    let outcome = loop {
        tokio::select! {
            outcome = &mut generating => break outcome,
            Some(event) = events.recv() => {
                if !on_event(event).await {
                    return Err(BackendError::Cancelled);
                }
            }
        }
    };
    events.close();
    while let Some(event) = events.recv().await {
        if !on_event(event).await {
            return Err(BackendError::Cancelled);
        }
    }
    outcome
}
