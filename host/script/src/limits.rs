//! Limits of time and memory for scripts.
//!
//! Invariant: Lua code runs only in a slice of [`Limits`], which starts the [`Stopwatch`] first. The hook ends a slice
//! that takes too long. Inside a C function no hook runs: other threads read the stopwatch and abandon the state.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use mlua::{HookTriggers, Lua, VmState};
use tightwad_core::sync;

/// The maximum memory of a script with all its running requests, in bytes.
pub(crate) const MAX_MEMORY_BYTES: usize = 256 << 20;
/// The maximum time that a script computes before it waits for the host.
pub(crate) const MAX_SLICE_TIME: Duration = Duration::from_secs(1);
/// The time after the end of a slice that the hook has to stop it.
const HOOK_GRACE_PERIOD: Duration = Duration::from_millis(500);
/// The number of Lua instructions between two runs of the hook.
const HOOK_INTERVAL_INSTRUCTIONS: u32 = 10_000;

/// Identifies a call of a script function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CallId {
    /// The model; empty while the host loads the script.
    pub model: Arc<str>,
    /// The number of the call in its Lua state.
    pub number: u64,
}

impl CallId {
    /// The call `number` of the function of `model`.
    pub(crate) fn new(model: &str, number: u64) -> Self {
        Self { model: model.into(), number }
    }
}

/// Shows other threads whether a Lua state computes, since when, and for which call.
#[derive(Debug, Default)]
pub(crate) struct Stopwatch(Mutex<Option<(Instant, CallId)>>);

impl Stopwatch {
    fn slice(&self) -> MutexGuard<'_, Option<(Instant, CallId)>> {
        sync::lock(&self.0)
    }

    /// The call that computes now.
    pub(crate) fn running_call(&self) -> Option<CallId> {
        self.slice().as_ref().map(|(_, call)| call.clone())
    }

    /// The call whose slice still runs after the time in which the hook stops it.
    pub(crate) fn stuck_call(&self) -> Option<CallId> {
        let slice = self.slice();
        let stuck = slice.as_ref().filter(|(began, _)| began.elapsed() > MAX_SLICE_TIME + HOOK_GRACE_PERIOD);
        stuck.map(|(_, call)| call.clone())
    }
}

/// The limits of one Lua state. A clone is cheap and shares the state's clock.
#[derive(Clone)]
pub(crate) struct Limits {
    slice: Rc<Slice>,
    stopwatch: Arc<Stopwatch>,
    max_slice: Duration,
}

/// The running slice.
struct Slice {
    deadline: Cell<Instant>,
    /// True if the script waited for the host in this slice.
    has_waited: Cell<bool>,
}

impl Limits {
    /// Applies the limits to `lua`.
    pub(crate) fn apply(lua: &Lua, stopwatch: Arc<Stopwatch>) -> mlua::Result<Self> {
        lua.set_memory_limit(MAX_MEMORY_BYTES)?;
        let slice = Rc::new(Slice {
            deadline: Cell::new(Instant::now() + MAX_SLICE_TIME),
            has_waited: Cell::new(false),
        });
        let limits = Self { slice, stopwatch, max_slice: MAX_SLICE_TIME };
        let clock = limits.clone();
        // Every coroutine inherits the hook.
        lua.set_global_hook(
            HookTriggers::new().every_nth_instruction(HOOK_INTERVAL_INSTRUCTIONS),
            move |_, _| clock.check().map(|()| VmState::Continue),
        )?;
        lua.set_app_data(limits.clone());
        Ok(limits)
    }

    /// The limits of the same state with a shorter slice.
    #[cfg(test)]
    pub(crate) fn with_max_slice(self, max_slice: Duration) -> Self {
        Self { max_slice, ..self }
    }

    /// Fails after the end of the slice. The wrappers of `pcall`, `xpcall` and the coroutine functions call this too,
    /// because they catch the hook's error.
    pub(crate) fn check(&self) -> mlua::Result<()> {
        if Instant::now() > self.slice.deadline.get() { Err(too_long()) } else { Ok(()) }
    }

    /// Runs the Lua code of a call. The limit excludes the time that the code waits for the host. A `coroutine.yield`
    /// does not count as waiting.
    pub(crate) async fn run<T>(
        &self,
        call: CallId,
        lua: impl Future<Output = mlua::Result<T>>,
    ) -> mlua::Result<T> {
        let lua = Some(Box::pin(lua));
        let mut running = RunningCall { limits: self, call, lua, used: Duration::ZERO };
        std::future::poll_fn(|context| running.poll(context)).await
    }

    /// Runs one slice of Lua code of `call`. `used`: the time of earlier slices since the last wait.
    fn slice<R>(&self, call: &CallId, used: Duration, lua: impl FnOnce() -> R) -> R {
        let start = Instant::now();
        self.slice.deadline.set(start + self.max_slice.saturating_sub(used));
        *self.stopwatch.slice() = Some((start, call.clone()));
        let result = lua();
        *self.stopwatch.slice() = None;
        result
    }
}

/// A running call. Its drop is a slice too, because it runs the handlers of `<close>` variables.
struct RunningCall<'a, F> {
    limits: &'a Limits,
    call: CallId,
    lua: Option<Pin<Box<F>>>,
    /// The time of computing since the last wait for the host.
    used: Duration,
}

impl<T, F: Future<Output = mlua::Result<T>>> RunningCall<'_, F> {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<mlua::Result<T>> {
        let Some(lua) = &mut self.lua else { return Poll::Ready(Err(too_long())) };
        let start = Instant::now();
        let polled = self.limits.slice(&self.call, self.used, || lua.as_mut().poll(context));
        let has_waited = self.limits.slice.has_waited.take();
        self.used = if has_waited { Duration::ZERO } else { self.used + start.elapsed() };
        match polled {
            Poll::Pending if self.used > self.limits.max_slice => Poll::Ready(Err(too_long())),
            polled => polled,
        }
    }
}

impl<F> Drop for RunningCall<'_, F> {
    fn drop(&mut self) {
        let lua = self.lua.take();
        self.limits.slice(&self.call, Duration::ZERO, || drop(lua));
    }
}

fn too_long() -> mlua::Error {
    mlua::Error::RuntimeError(too_long_message())
}

/// The error about a script that computes too long.
pub(crate) fn too_long_message() -> String {
    format!("the script computed for more than {} s without waiting for the host", MAX_SLICE_TIME.as_secs())
}

/// Waits for `host` inside a function that `lua` called. The limit of time excludes this wait.
pub(crate) async fn wait_for_host<T>(lua: &Lua, host: impl Future<Output = T>) -> T {
    let limits = lua.app_data_ref::<Limits>().map(|limits| limits.clone());
    let mut host = std::pin::pin!(host);
    std::future::poll_fn(|context| {
        let polled = host.as_mut().poll(context);
        if let (Poll::Pending, Some(limits)) = (&polled, &limits) {
            limits.slice.has_waited.set(true);
        }
        polled
    })
    .await
}
