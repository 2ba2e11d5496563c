//! A function of a script as a backend.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tightwad_core::{Backend, BackendError, Generator, Outcome, Request, Sink, sync};
use tokio::sync::Mutex as AsyncMutex;

use crate::abandoned;
use crate::abandoned::MAX_ABANDONED;
use crate::error::ScriptError;
use crate::limits::too_long_message;
use crate::request::RequestHandle;
use crate::state::{Loaded, LuaState, Source, Stuck};

/// Tries of a request whose state was lost to another function before anything was sent.
const MAX_TRIES: usize = 3;

/// There is no state for a function.
#[derive(Debug, thiserror::Error)]
enum StateError {
    /// Too many calls of the function never ended.
    #[error(
        "{}; {frozen} such calls still run, and more are refused: correct the script, or restart the host",
        too_long_message()
    )]
    Refused { frozen: usize },
    /// The script does not run again.
    #[error(transparent)]
    Script(#[from] ScriptError),
}

/// The functions of a script, and the states that they live in.
///
/// All share one state. A function that computes without an end loses it for all of them, once: from then on it
/// has a state of its own.
pub(crate) struct Functions {
    source: Arc<Source>,
    shared: Place,
    own: Mutex<HashMap<String, Arc<Place>>>,
}

/// Where a state is; empty until it is needed.
type Place = AsyncMutex<Option<Arc<LuaState>>>;

impl Functions {
    /// Runs a script.
    pub(crate) async fn load(source: Source) -> Result<(Arc<Self>, Loaded), ScriptError> {
        let source = Arc::new(source);
        let (state, loaded) = LuaState::start(&source).await?;
        let shared = AsyncMutex::new(Some(Arc::new(state)));
        Ok((Arc::new(Self { source, shared, own: Mutex::default() }), loaded))
    }

    /// The state of the function of `model`. Where it is lost, the script is run again on a new one.
    async fn state(&self, model: &str) -> Result<Arc<LuaState>, StateError> {
        let script = &self.source.shown;
        let own = self.own_place(model);
        let mut place = own.as_deref().unwrap_or(&self.shared).lock().await;
        if let Some(state) = place.as_ref().filter(|state| !state.is_lost()) {
            return Ok(state.clone());
        }
        if let Some(lost) = place.take() {
            lost.give_up();
        }
        let frozen = abandoned::count(script, model);
        if own.is_some() && frozen > MAX_ABANDONED {
            return Err(StateError::Refused { frozen });
        }
        let (state, _) = LuaState::start(&self.source).await?;
        let state = Arc::new(state);
        *place = Some(state.clone());
        Ok(state)
    }

    /// The place of a function that froze a state before.
    fn own_place(&self, model: &str) -> Option<Arc<Place>> {
        let mut own = sync::lock(&self.own);
        if !own.contains_key(model) && abandoned::count(&self.source.shown, model) > 0 {
            own.insert(model.to_owned(), Arc::default());
        }
        own.get(model).cloned()
    }
}

/// Calls a function with each request. What it streams is the answer; a string that it returns is
/// shown too.
pub(crate) struct Pipeline {
    name: String,
    functions: Arc<Functions>,
}

impl Pipeline {
    pub(crate) fn new(name: &str, functions: Arc<Functions>) -> Self {
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
        for _ in 0..MAX_TRIES {
            let state = self.functions.state(&self.name).await.map_err(|error| failed(error.to_string()))?;
            let handle = RequestHandle::new(&self.name, request.clone(), sink.clone());
            let record = handle.record.clone();
            let mut answering = state.call(&self.name, handle);
            let stuck = match state.answered(&mut answering).await {
                Ok(outcome) => return outcome,
                Err(Stuck(call)) => call,
            };
            state.give_up();
            if stuck == answering.id {
                break;
            }
            // Another call froze the state. What models write for this request still goes out.
            if record.has_begun() {
                return tokio::select! {
                    outcome = answering.outcome() => outcome,
                    outcome = record.settled() => outcome.ok_or_else(|| failed(too_long_message())),
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

    async fn asked(backend: &dyn Backend) -> (String, Result<Outcome, BackendError>) {
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
    async fn the_functions_of_a_script_share_its_state() {
        let text = SCRIPT.as_bytes().to_vec();
        let script = load_text("p.lua", text, Path::new("."), Arc::new(FakeFactory), &[]).await.unwrap();
        let [(_, counts), (_, fails)] = script.models.as_slice() else { panic!("{}", script.models.len()) };
        assert!(counts.as_generator().is_some());
        for call in 1..=2 {
            let (text, outcome) = asked(counts.as_ref()).await;
            assert_eq!((text, outcome.is_ok()), (format!("model: hi {call}"), true));
            let (text, outcome) = asked(fails.as_ref()).await;
            assert_eq!(text, "");
            assert_eq!(outcome.unwrap_err().to_string(), "fails failed: p.lua:11: no luck");
        }
    }
}
