//! Pipelines: functions of a script as backends.
//!
//! Invariant: each function has a Lua state of its own. A function that hangs, fails or keeps too much memory affects
//! only its own requests. The functions of a script therefore share no variables.

use std::sync::Arc;

use async_trait::async_trait;
use tightwad_core::{Backend, BackendError, Generator, Outcome, Request, Sink};
use tokio::sync::Mutex as AsyncMutex;

use crate::abandoned_threads;
use crate::error::ScriptError;
use crate::limits::too_long_message;
use crate::request::ActiveRequest;
use crate::source::Source;
use crate::state::{Interruption, LuaState, THREAD_ENDED};

/// The maximum number of attempts of a request. Another call of the function can block or end the state before the
/// request sends text.
const MAX_ATTEMPTS: usize = 3;

/// The host has no Lua state for a function.
#[derive(Debug, thiserror::Error)]
enum StateError {
    /// Too many abandoned threads of the function still run.
    #[error(
        "{}; {threads} such calls still run, and the host refuses further ones. Correct the script, or restart the host",
        too_long_message()
    )]
    Refused { threads: usize },
    /// The script failed in a new state.
    #[error(transparent)]
    Script(#[from] ScriptError),
}

/// Calls a function with each request. The answer is the streamed text, and then the string that the function returns.
pub(crate) struct Pipeline {
    name: String,
    source: Arc<Source>,
    /// Empty until a call needs a state. A state that ended stays until the next call.
    state: AsyncMutex<Option<Arc<LuaState>>>,
}

impl Pipeline {
    /// The pipeline of the function `name`. Without a `state`, the script runs in a new one before the first call.
    pub(crate) fn new(name: &str, source: &Arc<Source>, state: Option<LuaState>) -> Self {
        Self { name: name.to_owned(), source: source.clone(), state: AsyncMutex::new(state.map(Arc::new)) }
    }

    /// The state of the function. If the state is lost, the script runs again in a new one.
    async fn state(&self) -> Result<Arc<LuaState>, StateError> {
        let mut slot = self.state.lock().await;
        if let Some(state) = slot.as_ref().filter(|state| !state.is_lost()) {
            return Ok(state.clone());
        }
        if let Some(lost) = slot.take() {
            lost.abandon();
        }
        let threads = abandoned_threads::count(&self.source.display_name, &self.name);
        if threads > abandoned_threads::MAX_THREADS {
            return Err(StateError::Refused { threads });
        }
        let (state, _) = LuaState::start(&self.source).await?;
        let state = Arc::new(state);
        *slot = Some(state.clone());
        Ok(state)
    }
}

impl Backend for Pipeline {
    fn name(&self) -> &str {
        &self.name
    }

    fn as_generator(&self) -> Option<&dyn Generator> {
        Some(self)
    }
}

#[async_trait]
impl Generator for Pipeline {
    async fn generate(&self, request: Request, sink: Sink) -> Result<Outcome, BackendError> {
        let failed = |reason: &str| BackendError::failed(&self.name, reason);
        let mut reason = too_long_message();
        for _ in 0..MAX_ATTEMPTS {
            let state = self.state().await.map_err(|error| failed(&error.to_string()))?;
            let active = ActiveRequest::new(&self.name, request.clone(), sink.clone());
            let record = active.record.clone();
            let mut call = state.call(&self.name, active);
            match state.wait_for(&mut call).await {
                Ok(outcome) => return outcome,
                Err(Interruption::Ended) => {
                    reason = THREAD_ENDED.to_owned();
                    if record.has_begun() {
                        break;
                    }
                    continue;
                }
                Err(Interruption::Stuck(stuck)) => {
                    state.abandon();
                    reason = too_long_message();
                    if stuck == call.id {
                        break;
                    }
                }
            }
            // Another call blocks the state. The text of this request's running generations still goes out.
            if record.has_begun() {
                return tokio::select! {
                    outcome = call.outcome() => outcome,
                    outcome = record.outcome_when_idle() => outcome.ok_or_else(|| failed(&too_long_message())),
                };
            }
        }
        Err(failed(&reason))
    }
}

#[cfg(test)]
mod tests;
