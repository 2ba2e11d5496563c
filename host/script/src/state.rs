//! One Lua state on a thread of its own.
//!
//! Invariant: all values of a Lua state live on its thread; names, requests and outcomes cross. So a state that
//! computes without an end holds up nothing but its own requests, and can be given up.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::thread;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use mlua::{Function, Lua, Value};
use tightwad_core::{BackendError, Outcome, SharedBackend, Token};
use tokio::runtime::Handle as Runtime;
use tokio::sync::{mpsc, oneshot};

use crate::api::serve::Served;
use crate::api::table;
use crate::error::ScriptError;
use crate::factory::Factory;
use crate::handle::Handle;
use crate::limits::{CallId, Limits, Stopwatch, too_long_message};
use crate::request::RequestHandle;
use crate::{abandoned, call, priority, sandbox};

/// How often somebody who waits for a state looks whether it is stuck.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// The model of the slices in which a script is loaded.
const LOADING: &str = "";
/// The error of whatever waits for a thread that panicked.
const THREAD_ENDED: &str = "the thread of the script ended";

/// A script as it was read, so that it can be run again.
pub(crate) struct Source {
    /// Its name in errors.
    pub shown: String,
    pub text: Vec<u8>,
    /// Where relative paths and modules start.
    pub folder: PathBuf,
    pub factory: Arc<dyn Factory>,
    /// `tw.settings`.
    pub settings: Vec<(String, String)>,
}

/// What a script returned to `tw.serve`.
pub(crate) struct Loaded {
    pub listen: Option<String>,
    pub token: Option<Token>,
    /// By name; `None`: a function of the script.
    pub models: Vec<(String, Option<SharedBackend>)>,
}

/// A request for a function of the script.
struct Call {
    id: CallId,
    request: RequestHandle,
    reply: oneshot::Sender<Result<Outcome, BackendError>>,
}

/// A state does not answer in time: this call computes without an end.
#[derive(Debug)]
pub(crate) struct Stuck(pub CallId);

/// The answer to a call, still to come.
pub(crate) struct Answering {
    /// The call.
    pub id: CallId,
    answer: oneshot::Receiver<Result<Outcome, BackendError>>,
}

impl Answering {
    /// The answer, however long it takes.
    pub(crate) async fn outcome(&mut self) -> Result<Outcome, BackendError> {
        (&mut self.answer).await.unwrap_or_else(|_| self.thread_ended())
    }

    fn thread_ended(&self) -> Result<Outcome, BackendError> {
        Err(BackendError::failed(&self.id.model, THREAD_ENDED))
    }
}

/// A running Lua state. Its thread ends when this is dropped and the running calls are over.
pub(crate) struct LuaState {
    /// The script's name.
    script: String,
    calls: mpsc::UnboundedSender<Call>,
    next: AtomicU64,
    stopwatch: Arc<Stopwatch>,
    /// Upgrades as long as the thread lives.
    alive: Weak<()>,
    /// The thread, once it runs.
    thread: Arc<OnceLock<priority::Thread>>,
    given_up: AtomicBool,
}

impl LuaState {
    /// Runs a script on a new thread. Must be called within a runtime, on which host functions run.
    ///
    /// # Errors
    ///
    /// [`ScriptError`] with file and line.
    pub(crate) async fn start(source: &Arc<Source>) -> Result<(Self, Loaded), ScriptError> {
        if abandoned::count(&source.shown, LOADING) > abandoned::MAX_ABANDONED {
            let message = format!("{}, again and again; restart the host", too_long_message());
            return Err(ScriptError::new(message));
        }
        let (calls, inbox) = mpsc::unbounded_channel();
        let (loaded, mut answer) = oneshot::channel();
        let (stopwatch, life) = (Arc::<Stopwatch>::default(), Arc::new(()));
        let state = Self {
            script: source.shown.clone(),
            calls,
            next: AtomicU64::new(1),
            stopwatch: stopwatch.clone(),
            alive: Arc::downgrade(&life),
            thread: Arc::default(),
            given_up: AtomicBool::new(false),
        };
        let (own, runtime, thread) = (source.clone(), Runtime::current(), state.thread.clone());
        let run = move || {
            let _ = thread.set(priority::Thread::current());
            runtime.block_on(serve(&own, stopwatch, inbox, loaded));
            drop(life);
        };
        let spawned = thread::Builder::new().name("lua".to_owned()).spawn(run);
        spawned
            .map_err(|error| ScriptError::new(format!("cannot start a thread for the script: {error}")))?;
        match state.in_time(&mut answer).await {
            Ok(Ok(loaded)) => Ok((state, loaded?)),
            Ok(Err(_)) => Err(ScriptError::new(THREAD_ENDED)),
            Err(Stuck(_)) => Err(ScriptError::new(too_long_message())),
        }
    }

    /// Lets the script answer `request` by its function `model`.
    pub(crate) fn call(&self, model: &str, request: RequestHandle) -> Answering {
        let (reply, answer) = oneshot::channel();
        let id = CallId::new(model, self.next.fetch_add(1, Ordering::Relaxed));
        // Where this fails, so does the wait for the answer.
        let _ = self.calls.send(Call { id: id.clone(), request, reply });
        Answering { id, answer }
    }

    /// The answer to a call, unless the state gets stuck first.
    pub(crate) async fn answered(
        &self,
        answering: &mut Answering,
    ) -> Result<Result<Outcome, BackendError>, Stuck> {
        let answer = self.in_time(&mut answering.answer).await?;
        Ok(answer.unwrap_or_else(|_| answering.thread_ended()))
    }

    /// Waits for the thread, unless it gets stuck first.
    async fn in_time<T>(
        &self,
        answer: &mut oneshot::Receiver<T>,
    ) -> Result<Result<T, oneshot::error::RecvError>, Stuck> {
        loop {
            match tokio::time::timeout(LOOK_INTERVAL, &mut *answer).await {
                Ok(answer) => return Ok(answer),
                Err(_) => {
                    if let Some(call) = self.stopwatch.stuck() {
                        return Err(Stuck(call));
                    }
                }
            }
        }
    }

    /// True when the state will answer no call in time.
    pub(crate) fn is_lost(&self) -> bool {
        self.given_up.load(Ordering::Acquire) || self.stopwatch.stuck().is_some() || self.calls.is_closed()
    }

    /// Uses the state no more, where it computes. Its thread gets what processor time others leave.
    pub(crate) fn give_up(&self) {
        let Some(call) = self.stopwatch.computes() else { return };
        if self.alive.strong_count() > 0 && !self.given_up.swap(true, Ordering::AcqRel) {
            let (script, model) = (&self.script, &call.model);
            tracing::warn!(%script, %model, "a function did not end in time; its Lua state is given up");
            abandoned::note(script, model, &self.alive);
            if let Some(thread) = self.thread.get() {
                thread.lower();
            }
        }
    }
}

impl Drop for LuaState {
    /// Nobody waits for it any more, so what it computes now is in vain.
    fn drop(&mut self) {
        self.give_up();
    }
}

/// The thread: loads the script, then answers calls until its [`LuaState`] is dropped.
async fn serve(
    source: &Source,
    stopwatch: Arc<Stopwatch>,
    mut inbox: mpsc::UnboundedReceiver<Call>,
    reply: oneshot::Sender<Result<Loaded, ScriptError>>,
) {
    let script = match Script::load(source, stopwatch).await {
        Ok((script, loaded)) => {
            let _ = reply.send(Ok(loaded));
            script
        }
        Err(error) => {
            let _ = reply.send(Err(error));
            return;
        }
    };
    let mut running = FuturesUnordered::new();
    loop {
        tokio::select! {
            call = inbox.recv() => match call {
                Some(call) => running.push(script.answer(call)),
                None => break,
            },
            Some(()) = running.next() => {}
        }
    }
    while running.next().await.is_some() {}
}

/// A loaded script, on its thread.
struct Script {
    functions: HashMap<String, Function>,
    limits: Limits,
    // Keeps the state alive that the functions live in.
    _lua: Lua,
}

impl Script {
    async fn load(source: &Source, stopwatch: Arc<Stopwatch>) -> Result<(Self, Loaded), ScriptError> {
        let (lua, limits) = sandbox::state(stopwatch)?;
        let shown = &source.shown;
        let tw = table::table(&lua, shown, &source.folder, &source.factory, &source.settings)?;
        sandbox::set_require(&lua, &source.folder, &tw)?;
        let chunk = lua.load(source.text.as_slice()).set_name(format!("@{shown}"));
        let main = chunk.set_mode(mlua::chunk::ChunkMode::Text).into_function()?;
        let value: Value = limits.run(CallId::new(LOADING, 0), main.call_async(())).await?;
        let served = match &value {
            Value::UserData(data) => data.borrow::<Served>().map(|served| served.clone()).ok(),
            _ => None,
        };
        let served = served.ok_or_else(|| {
            ScriptError::new(format!("{shown}: the script must end with `return tw.serve{{ ... }}`"))
        })?;
        let (mut functions, mut models) = (HashMap::new(), Vec::new());
        for (name, value) in served.models {
            let backend = match value {
                Value::Function(function) => {
                    functions.insert(name.clone(), function);
                    None
                }
                other => Some(lua.unpack::<Handle>(other)?.0),
            };
            models.push((name, backend));
        }
        let loaded = Loaded { listen: served.listen, token: served.token, models };
        Ok((Self { functions, limits, _lua: lua }, loaded))
    }

    /// Answers one call, unless its client leaves first.
    async fn answer(&self, call: Call) {
        let Call { id, request, mut reply } = call;
        let Some(function) = self.functions.get(&*id.model) else { return };
        let outcome = tokio::select! {
            // First: a call whose client has left must not begin.
            biased;
            () = reply.closed() => return,
            outcome = call::answer(id, function, &self.limits, request) => outcome,
        };
        let _ = reply.send(outcome);
    }
}
