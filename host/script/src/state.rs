//! One Lua state on its own thread.
//!
//! Invariant: all values of a Lua state stay on its thread. Only names, requests and outcomes cross. So a state that
//! computes too long blocks only its own requests, and the host can abandon it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::thread;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use mlua::{Function, Lua, Value};
use tightwad_core::{BackendError, Credentials, Outcome, SCRIPT_THREAD_NAME, SharedBackend};
use tightwad_net::door::WebNames;
use tightwad_net::tls::CertificatePaths;
use tokio::runtime::Handle as Runtime;
use tokio::sync::{mpsc, oneshot};

use crate::api::serve::ServeSpec;
use crate::api::table;
use crate::error::ScriptError;
use crate::handle::BackendHandle;
use crate::limits::{CallId, Limits, MAX_IDLE_BYTES, Stopwatch, too_long_message};
use crate::request::ActiveRequest;
use crate::source::Source;
use crate::{abandoned_threads, call, priority, require, sandbox};

/// The interval at which a waiting call checks whether its state is stuck.
const STUCK_CHECK_INTERVAL: Duration = Duration::from_millis(100);
/// Stands for the model in the calls that load a script.
const LOADING: &str = "";
/// The stack of the thread. Lua permits 200 nested calls of C functions, and functions of the host are such functions.
const STACK_BYTES: usize = 16 << 20;
/// The error about a thread that panicked.
pub(crate) const THREAD_ENDED: &str = "the thread of the script ended";

/// The result of a script.
pub(crate) struct LoadedScript {
    pub listen: Option<String>,
    pub credentials: Credentials,
    pub web: Arc<WebNames>,
    pub tls: Option<CertificatePaths>,
    /// Backends by name; `None`: a function of the script.
    pub models: Vec<(String, Option<SharedBackend>)>,
}

/// A request for a function of the script.
struct Call {
    id: CallId,
    request: ActiveRequest,
    reply: oneshot::Sender<Result<Outcome, BackendError>>,
}

/// A state gives no outcome of a call.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Interruption {
    /// This call computes too long.
    Stuck(CallId),
    /// The state has ended: the host replaces it, or its thread panicked.
    Ended,
}

/// A call whose outcome is pending.
pub(crate) struct PendingCall {
    pub id: CallId,
    reply: oneshot::Receiver<Result<Outcome, BackendError>>,
}

impl PendingCall {
    /// Waits for the outcome without a limit of time.
    pub(crate) async fn outcome(&mut self) -> Result<Outcome, BackendError> {
        let ended = |_| Err(BackendError::failed(&self.id.model, THREAD_ENDED));
        (&mut self.reply).await.unwrap_or_else(ended)
    }
}

/// A running Lua state. Its thread ends after the drop of this value and the end of the running calls.
pub(crate) struct LuaState {
    /// The script's name in errors.
    script: String,
    calls: mpsc::UnboundedSender<Call>,
    /// The number of the next call.
    next_call: AtomicU64,
    stopwatch: Arc<Stopwatch>,
    /// Upgrades while the thread lives.
    alive: Weak<()>,
    /// Set when the thread runs.
    thread: Arc<OnceLock<priority::Thread>>,
    is_abandoned: AtomicBool,
}

impl LuaState {
    /// Runs a script on a new thread. Must be called within a tokio runtime, which runs the host's functions.
    ///
    /// # Errors
    ///
    /// [`ScriptError`] with file and line.
    pub(crate) async fn start(source: &Arc<Source>) -> Result<(Self, LoadedScript), ScriptError> {
        let threads = abandoned_threads::count(&source.display_name, LOADING);
        if threads > abandoned_threads::MAX_THREADS {
            let message =
                format!("{}; {threads} such runs still compute. Restart the host", too_long_message());
            return Err(ScriptError::new(message));
        }
        let (calls, inbox) = mpsc::unbounded_channel();
        let (loaded, mut answer) = oneshot::channel();
        let (stopwatch, thread_life) = (Arc::<Stopwatch>::default(), Arc::new(()));
        let state = Self {
            script: source.display_name.clone(),
            calls,
            next_call: AtomicU64::new(1),
            stopwatch: stopwatch.clone(),
            alive: Arc::downgrade(&thread_life),
            thread: Arc::default(),
            is_abandoned: AtomicBool::new(false),
        };
        let (own, runtime, thread) = (source.clone(), Runtime::current(), state.thread.clone());
        let run = move || {
            let _ = thread.set(priority::Thread::current());
            runtime.block_on(serve(&own, stopwatch, inbox, loaded));
            drop(thread_life);
        };
        let spawned =
            thread::Builder::new().name(SCRIPT_THREAD_NAME.to_owned()).stack_size(STACK_BYTES).spawn(run);
        spawned
            .map_err(|error| ScriptError::new(format!("cannot start a thread for the script: {error}")))?;
        match state.wait_unless_stuck(&mut answer).await {
            Ok(loaded) => Ok((state, loaded?)),
            Err(Interruption::Ended) => Err(ScriptError::new(THREAD_ENDED)),
            Err(Interruption::Stuck(_)) => Err(ScriptError::new(too_long_message())),
        }
    }

    /// Calls the function of `model` with `request`.
    pub(crate) fn call(&self, model: &str, request: ActiveRequest) -> PendingCall {
        let (reply, receiver) = oneshot::channel();
        let id = CallId::new(model, self.next_call.fetch_add(1, Ordering::Relaxed));
        // If the thread has ended, the wait for the reply fails.
        let _ = self.calls.send(Call { id: id.clone(), request, reply });
        PendingCall { id, reply: receiver }
    }

    /// Waits for the outcome of a call.
    ///
    /// # Errors
    ///
    /// [`Interruption`] if the state computes too long, for this call or for another one, or has ended.
    pub(crate) async fn wait_for(
        &self,
        call: &mut PendingCall,
    ) -> Result<Result<Outcome, BackendError>, Interruption> {
        self.wait_unless_stuck(&mut call.reply).await
    }

    async fn wait_unless_stuck<T>(&self, reply: &mut oneshot::Receiver<T>) -> Result<T, Interruption> {
        loop {
            match tokio::time::timeout(STUCK_CHECK_INTERVAL, &mut *reply).await {
                Ok(reply) => return reply.map_err(|_| Interruption::Ended),
                Err(_) => {
                    if let Some(call) = self.stopwatch.stuck_call() {
                        return Err(Interruption::Stuck(call));
                    }
                }
            }
        }
    }

    /// True if the state can answer no further call.
    pub(crate) fn is_lost(&self) -> bool {
        self.is_abandoned.load(Ordering::Acquire)
            || self.stopwatch.stuck_call().is_some()
            || self.calls.is_closed()
    }

    /// Abandons the state if it computes. Its thread continues with the lowest priority.
    pub(crate) fn abandon(&self) {
        let Some(call) = self.stopwatch.running_call() else { return };
        if self.alive.strong_count() > 0 && !self.is_abandoned.swap(true, Ordering::AcqRel) {
            let (script, model) = (&self.script, &call.model);
            tracing::warn!(%script, %model, "a function computes too long; the host abandons its Lua state");
            abandoned_threads::record(script, model, &self.alive);
            if let Some(thread) = self.thread.get() {
                thread.lower();
            }
        }
    }
}

impl Drop for LuaState {
    /// No caller waits for the state any more, so its computing is useless.
    fn drop(&mut self) {
        self.abandon();
    }
}

/// The main function of the thread: loads the script, and answers calls until the [`LuaState`] is dropped.
async fn serve(
    source: &Arc<Source>,
    stopwatch: Arc<Stopwatch>,
    mut inbox: mpsc::UnboundedReceiver<Call>,
    reply: oneshot::Sender<Result<LoadedScript, ScriptError>>,
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
        let has_room = running.is_empty() || script.has_room();
        tokio::select! {
            call = inbox.recv(), if has_room => match call {
                Some(call) => running.push(script.answer(call)),
                None => break,
            },
            Some(()) = running.next() => {}
        }
        if running.is_empty() && !script.has_room() {
            script.warn_about_memory();
            // The callers of the waiting calls try again in a new state.
            return;
        }
    }
    while running.next().await.is_some() {}
}

/// A loaded script, on its thread.
struct Script {
    name: String,
    functions: HashMap<String, Function>,
    limits: Limits,
    lua: Lua,
}

impl Script {
    async fn load(
        source: &Arc<Source>,
        stopwatch: Arc<Stopwatch>,
    ) -> Result<(Self, LoadedScript), ScriptError> {
        let (lua, limits) = sandbox::state(stopwatch)?;
        let display_name = &source.display_name;
        let tw = table::table(&lua, source)?;
        require::set_require(&lua, source, &tw)?;
        let chunk = lua.load(source.text.as_slice()).set_name(format!("@{display_name}"));
        let main = chunk.set_mode(mlua::chunk::ChunkMode::Text).into_function()?;
        let run = main.call_async(());
        let value: Value = limits.run(&lua, CallId::new(LOADING, 0), MAX_IDLE_BYTES, run).await?;
        let spec = match &value {
            Value::UserData(data) => data.borrow::<ServeSpec>().map(|spec| spec.clone()).ok(),
            _ => None,
        };
        let spec = spec.ok_or_else(|| {
            ScriptError::new(format!("{display_name}: the script must end with `return tw.serve{{ ... }}`"))
        })?;
        let (mut functions, mut models) = (HashMap::new(), Vec::new());
        for (name, value) in spec.models {
            let backend = match value {
                Value::Function(function) => {
                    functions.insert(name.clone(), function);
                    None
                }
                other => Some(lua.unpack::<BackendHandle>(other)?.0),
            };
            models.push((name, backend));
        }
        let loaded = LoadedScript {
            listen: spec.listen,
            credentials: spec.credentials,
            web: spec.web,
            tls: spec.tls,
            models,
        };
        Ok((Self { name: display_name.clone(), functions, limits, lua }, loaded))
    }

    /// True if the state needs at most the memory of an idle state, without garbage.
    fn has_room(&self) -> bool {
        if self.lua.used_memory() <= MAX_IDLE_BYTES {
            return true;
        }
        // The collection fails only in finalizers, and scripts have none.
        let _ = self.lua.gc_collect();
        self.lua.used_memory() <= MAX_IDLE_BYTES
    }

    fn warn_about_memory(&self) {
        let (script, megabytes) = (&self.name, MAX_IDLE_BYTES >> 20);
        tracing::warn!(
            script,
            "a function keeps more than {megabytes} MB between requests. The host runs the script again for it, with new \
             variables."
        );
    }

    /// Answers one call. The call ends early when the client disconnects.
    async fn answer(&self, call: Call) {
        let Call { id, request, mut reply } = call;
        let Some(function) = self.functions.get(&*id.model) else { return };
        let outcome = tokio::select! {
            // This branch comes first: the call of a disconnected client must not begin.
            biased;
            () = reply.closed() => return,
            outcome = call::call_function(id, &self.lua, function, &self.limits, request) => outcome,
        };
        let _ = reply.send(outcome);
    }
}
