//! Time and memory of scripts.
//!
//! Invariant: Lua code runs only in a slice of [`Limits`], which starts the [`Stopwatch`] first. The hook ends a
//! slice that takes too long. A C function calls no hook: other threads see it by the stopwatch, and give the state
//! up.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use mlua::{HookTriggers, Lua, VmState};
use tightwad_core::sync;

/// Memory of a script with all its running requests, in bytes.
pub(crate) const MAX_MEMORY_BYTES: usize = 256 << 20;
/// Longest computing of a script until it waits for the host.
pub(crate) const MAX_SLICE: Duration = Duration::from_secs(1);
/// Time that the hook gets, beyond the slice, to end it.
const GRACE: Duration = Duration::from_millis(500);
/// Instructions between two looks at the clock.
const HOOK_INSTRUCTIONS: u32 = 10_000;

/// The call of a function that a slice belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CallId {
    /// The model; empty while the script is loaded.
    pub model: Arc<str>,
    /// Its number in this state.
    pub number: u64,
}

impl CallId {
    /// The call `number` of the function of `model`.
    pub(crate) fn new(model: &str, number: u64) -> Self {
        Self { model: model.into(), number }
    }
}

/// Says to other threads whether a Lua state computes, since when, and for which call.
#[derive(Debug, Default)]
pub(crate) struct Stopwatch(Mutex<Option<(Instant, CallId)>>);

impl Stopwatch {
    fn slice(&self) -> MutexGuard<'_, Option<(Instant, CallId)>> {
        sync::lock(&self.0)
    }

    /// The call that computes now.
    pub(crate) fn computes(&self) -> Option<CallId> {
        self.slice().as_ref().map(|(_, call)| call.clone())
    }

    /// The call whose slice goes on although the hook should have ended it.
    pub(crate) fn stuck(&self) -> Option<CallId> {
        let slice = self.slice();
        let stuck = slice.as_ref().filter(|(began, _)| began.elapsed() > MAX_SLICE + GRACE);
        stuck.map(|(_, call)| call.clone())
    }
}

/// The limits of one Lua state; cheap to clone.
#[derive(Clone)]
pub(crate) struct Limits {
    slice: Rc<Slice>,
    stopwatch: Arc<Stopwatch>,
    max_slice: Duration,
}

/// The slice that runs.
struct Slice {
    deadline: Cell<Instant>,
    /// The script waited for the host.
    waited: Cell<bool>,
}

impl Limits {
    /// Puts `lua` under the limits.
    pub(crate) fn impose(lua: &Lua, stopwatch: Arc<Stopwatch>) -> mlua::Result<Self> {
        lua.set_memory_limit(MAX_MEMORY_BYTES)?;
        let slice =
            Rc::new(Slice { deadline: Cell::new(Instant::now() + MAX_SLICE), waited: Cell::new(false) });
        let limits = Self { slice, stopwatch, max_slice: MAX_SLICE };
        let clock = limits.clone();
        // Inherited by every coroutine.
        lua.set_global_hook(HookTriggers::new().every_nth_instruction(HOOK_INSTRUCTIONS), move |_, _| {
            clock.check().map(|()| VmState::Continue)
        })?;
        lua.set_app_data(limits.clone());
        Ok(limits)
    }

    /// The same state under a shorter limit of time.
    #[cfg(test)]
    pub(crate) fn with_max_slice(self, max_slice: Duration) -> Self {
        Self { max_slice, ..self }
    }

    /// An error once the slice has taken too long. `pcall` and its kin call this too, because they
    /// would otherwise swallow the hook's error and go on.
    pub(crate) fn check(&self) -> mlua::Result<()> {
        if Instant::now() > self.slice.deadline.get() { Err(too_long()) } else { Ok(()) }
    }

    /// Runs the Lua code of a call. Time in which it waits for the host does not count; `coroutine.yield` is not
    /// waiting.
    pub(crate) async fn run<T>(
        &self,
        call: CallId,
        lua: impl Future<Output = mlua::Result<T>>,
    ) -> mlua::Result<T> {
        let lua = Some(Box::pin(lua));
        let mut running = Running { limits: self, call, lua, used: Duration::ZERO };
        std::future::poll_fn(|context| running.poll(context)).await
    }

    /// A slice of Lua code of `call`, which used some of its time before.
    fn slice<R>(&self, call: &CallId, used: Duration, lua: impl FnOnce() -> R) -> R {
        let start = Instant::now();
        self.slice.deadline.set(start + self.max_slice.saturating_sub(used));
        *self.stopwatch.slice() = Some((start, call.clone()));
        let result = lua();
        *self.stopwatch.slice() = None;
        result
    }
}

/// A call under way. Dropping Lua code runs Lua code too: handlers of `<close>` variables.
struct Running<'a, F> {
    limits: &'a Limits,
    call: CallId,
    lua: Option<Pin<Box<F>>>,
    /// Computing since it last waited for the host.
    used: Duration,
}

impl<T, F: Future<Output = mlua::Result<T>>> Running<'_, F> {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<mlua::Result<T>> {
        let Some(lua) = &mut self.lua else { return Poll::Ready(Err(too_long())) };
        let start = Instant::now();
        let polled = self.limits.slice(&self.call, self.used, || lua.as_mut().poll(context));
        let waited = self.limits.slice.waited.take();
        self.used = if waited { Duration::ZERO } else { self.used + start.elapsed() };
        match polled {
            Poll::Pending if self.used > self.limits.max_slice => Poll::Ready(Err(too_long())),
            polled => polled,
        }
    }
}

impl<F> Drop for Running<'_, F> {
    fn drop(&mut self) {
        let lua = self.lua.take();
        self.limits.slice(&self.call, Duration::ZERO, || drop(lua));
    }
}

fn too_long() -> mlua::Error {
    mlua::Error::RuntimeError(too_long_message())
}

/// What is said of a script that takes too long.
pub(crate) fn too_long_message() -> String {
    format!("the script computed for more than {} s without a pause", MAX_SLICE.as_secs())
}

/// Waits for `host` in a function that `lua` called.
pub(crate) async fn waiting<T>(lua: &Lua, host: impl Future<Output = T>) -> T {
    let limits = lua.app_data_ref::<Limits>().map(|limits| limits.clone());
    let mut host = std::pin::pin!(host);
    std::future::poll_fn(|context| {
        let polled = host.as_mut().poll(context);
        if let (Poll::Pending, Some(limits)) = (&polled, &limits) {
            limits.slice.waited.set(true);
        }
        polled
    })
    .await
}
