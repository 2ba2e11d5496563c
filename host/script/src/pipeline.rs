//! Pipelines: functions of a script as backends.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tightwad_core::{Backend, BackendError, Generator, Outcome, Request, Sink, sync};
use tokio::sync::Mutex as AsyncMutex;

use crate::abandoned_threads;
use crate::error::ScriptError;
use crate::limits::too_long_message;
use crate::request::RequestHandle;
use crate::source::Source;
use crate::state::{LoadedScript, LuaState, Stuck};

/// The maximum number of attempts of a request. Another function can block the shared state before the request sends text.
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

/// The functions of a script and their Lua states.
///
/// The functions share one state. A function that computes too long makes the host abandon that state, once. Afterwards
/// this function uses a separate state.
pub(crate) struct ScriptFunctions {
    source: Arc<Source>,
    shared: StateSlot,
    /// The states of single functions, by model.
    function_states: Mutex<HashMap<String, Arc<StateSlot>>>,
}

/// Holds a state; empty until a call needs one.
type StateSlot = AsyncMutex<Option<Arc<LuaState>>>;

impl ScriptFunctions {
    /// Runs a script.
    pub(crate) async fn load(source: Source) -> Result<(Arc<Self>, LoadedScript), ScriptError> {
        let source = Arc::new(source);
        let (state, loaded) = LuaState::start(&source).await?;
        let shared = AsyncMutex::new(Some(Arc::new(state)));
        Ok((Arc::new(Self { source, shared, function_states: Mutex::default() }), loaded))
    }

    /// The state of the function of `model`. If the state is lost, the script runs again in a new one.
    async fn state(&self, model: &str) -> Result<Arc<LuaState>, StateError> {
        let script = &self.source.display_name;
        let function_slot = self.function_slot(model);
        let mut slot = function_slot.as_deref().unwrap_or(&self.shared).lock().await;
        if let Some(state) = slot.as_ref().filter(|state| !state.is_lost()) {
            return Ok(state.clone());
        }
        if let Some(lost) = slot.take() {
            lost.abandon();
        }
        let threads = abandoned_threads::count(script, model);
        if function_slot.is_some() && threads > abandoned_threads::MAX_THREADS {
            return Err(StateError::Refused { threads });
        }
        let (state, _) = LuaState::start(&self.source).await?;
        let state = Arc::new(state);
        *slot = Some(state.clone());
        Ok(state)
    }

    /// The slot of a function that has blocked a state before.
    fn function_slot(&self, model: &str) -> Option<Arc<StateSlot>> {
        let mut function_states = sync::lock(&self.function_states);
        if !function_states.contains_key(model)
            && abandoned_threads::count(&self.source.display_name, model) > 0
        {
            function_states.insert(model.to_owned(), Arc::default());
        }
        function_states.get(model).cloned()
    }
}

/// Calls a function with each request. The answer is the streamed text, and then the string that the function returns.
pub(crate) struct Pipeline {
    name: String,
    functions: Arc<ScriptFunctions>,
}

impl Pipeline {
    pub(crate) fn new(name: &str, functions: Arc<ScriptFunctions>) -> Self {
        Self { name: name.to_owned(), functions }
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
        let failed = |reason: String| BackendError::failed(&self.name, reason);
        for _ in 0..MAX_ATTEMPTS {
            let state = self.functions.state(&self.name).await.map_err(|error| failed(error.to_string()))?;
            let handle = RequestHandle::new(&self.name, request.clone(), sink.clone());
            let record = handle.record.clone();
            let mut call = state.call(&self.name, handle);
            let stuck = match state.wait_for(&mut call).await {
                Ok(outcome) => return outcome,
                Err(Stuck(id)) => id,
            };
            state.abandon();
            if stuck == call.id {
                break;
            }
            // Another call blocks the state. The text of this request's running generations still goes out.
            if record.has_begun() {
                return tokio::select! {
                    outcome = call.outcome() => outcome,
                    outcome = record.outcome_when_idle() => outcome.ok_or_else(|| failed(too_long_message())),
                };
            }
        }
        Err(failed(too_long_message()))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tightwad_core::{Prompt, relay};

    use super::*;
    use crate::fake_factory::FakeFactory;
    use crate::loader::load_text;

    const SCRIPT: &str = r#"
local tw = require "tightwad"
local m = tw.model{ path = "m.gguf" }
local calls = 0
return tw.serve{ models = {
  counts = function(request)
    calls = calls + 1
    m:generate(request)
    return " " .. calls
  end,
  fails = function() error("no luck") end,
} }
"#;

    async fn ask(backend: &dyn Backend) -> (String, Result<Outcome, BackendError>) {
        let mut text = String::new();
        let request = Request { prompt: Prompt::Text("hi".to_owned()), ..Request::default() };
        let outcome = relay(backend, request, |event| {
            text.push_str(&event.text);
            async { true }
        })
        .await;
        (text, outcome)
    }

    #[tokio::test]
    async fn script_functions_share_state() {
        let text = SCRIPT.as_bytes().to_vec();
        let script = load_text("p.lua", text, Path::new("."), Arc::new(FakeFactory), &[]).await.unwrap();
        let [(_, counts), (_, fails)] = script.models.as_slice() else { panic!("{}", script.models.len()) };
        assert!(counts.as_generator().is_some());
        for call in 1..=2 {
            let (text, outcome) = ask(counts.as_ref()).await;
            assert_eq!((text, outcome.is_ok()), (format!("model: hi {call}"), true));
            let (text, outcome) = ask(fails.as_ref()).await;
            assert_eq!(text, "");
            assert_eq!(outcome.unwrap_err().to_string(), "fails failed: p.lua:11: no luck");
        }
    }
}
