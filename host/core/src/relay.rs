//! Running a generation and handing its events on.

use std::pin::pin;

use tokio::sync::mpsc;

use crate::backend::Backend;
use crate::error::BackendError;
use crate::event::{Event, Outcome};
use crate::request::Request;

/// Events that wait for a slow reader before the generation pauses.
const BUFFER: usize = 64;

/// Lets `backend` answer and gives each event to `each`, which says whether to go on. The answer is
/// over when the backend says so, even if something keeps its sink.
///
/// # Errors
///
/// The backend's, and [`BackendError::Cancelled`] where `each` wants no more.
pub async fn relay<F>(
    backend: &dyn Backend,
    request: Request,
    mut each: impl FnMut(Event) -> F,
) -> Result<Outcome, BackendError>
where
    F: Future<Output = bool>,
{
    let (sink, mut events) = mpsc::channel(BUFFER);
    let mut generating = pin!(backend.generator()?.generate(request, sink));
    let outcome = loop {
        tokio::select! {
            outcome = &mut generating => break outcome,
            Some(event) = events.recv() => {
                if !each(event).await {
                    return Err(BackendError::Cancelled);
                }
            }
        }
    };
    events.close();
    while let Some(event) = events.recv().await {
        if !each(event).await {
            return Err(BackendError::Cancelled);
        }
    }
    outcome
}
