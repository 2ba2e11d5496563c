//! Limits of time and memory for scripts.
//!
//! Invariant: Lua code runs only in a slice of [`Limits`], which starts the [`Stopwatch`] and sets the call's memory limit
//! first. The hook ends a slice that takes too long. Inside a C function no hook runs: other threads read the stopwatch
//! and abandon the state.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use mlua::{HookTriggers, Lua, VmState};
use tightwad_core::sync;

/// The maximum memory of a Lua state with all its running requests, in bytes.
pub(crate) const MAX_STATE_BYTES: usize = 256 << 20;
/// The maximum memory that one request may add to its state, in bytes.
pub(crate) const MAX_REQUEST_BYTES: usize = 96 << 20;
/// The maximum memory of a loaded script between requests, in bytes. A state that keeps more starts no further request
/// until its requests have ended, and is then replaced.
pub(crate) const MAX_IDLE_BYTES: usize = 128 << 20;
/// The maximum time that a script computes before it waits for the host.
pub(crate) const MAX_SLICE_TIME: Duration = Duration::from_secs(1);
/// The time after the end of a slice that the hook has to stop it.
const HOOK_GRACE_PERIOD: Duration = Duration::from_millis(500);
/// The number of Lua instructions between two runs of the hook.
const HOOK_INTERVAL_INSTRUCTIONS: u32 = 10_000;

/// A call that added more than this is followed by a garbage collection. Otherwise the memory of the next call would
/// be measured among the garbage of this one.
const MAX_UNCOLLECTED_BYTES: i64 = 16 << 20;

/// The error about a script that needs too much memory.
pub(crate) fn memory_message() -> String {
    let megabytes = |bytes: usize| bytes >> 20;
    format!(
        "the script used more memory than its limit: {} MB for one request, {} MB for all requests of a function at the same \
         time",
        megabytes(MAX_REQUEST_BYTES),
        megabytes(MAX_STATE_BYTES)
    )
}

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
        lua.set_memory_limit(MAX_STATE_BYTES)?;
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

    /// Runs the code of a call in `lua`. The code may add `max_bytes` to the memory of the state. The limit of time
    /// excludes the time that the code waits for the host. A `coroutine.yield` does not count as waiting.
    pub(crate) async fn run<T>(
        &self,
        lua: &Lua,
        call: CallId,
        max_bytes: usize,
        code: impl Future<Output = mlua::Result<T>>,
    ) -> mlua::Result<T> {
        let code = Some(Box::pin(code));
        let budget = MemoryBudget { lua, max_bytes: max_bytes as i64, added_bytes: 0 };
        let mut running = RunningCall { limits: self, call, code, used: Duration::ZERO, budget };
        std::future::poll_fn(|context| running.poll(context)).await
    }

    /// Runs one slice of the code of `call`. `used`: the time of earlier slices since the last wait.
    fn slice<R>(&self, call: &CallId, used: Duration, code: impl FnOnce() -> R) -> R {
        let start = Instant::now();
        self.slice.deadline.set(start + self.max_slice.saturating_sub(used));
        *self.stopwatch.slice() = Some((start, call.clone()));
        let result = code();
        *self.stopwatch.slice() = None;
        result
    }
}

/// The memory that a call may add to its state.
///
/// The calls of a state share its memory. The budget therefore measures the growth of the state in the slices of one
/// call. At the limit, Lua collects the garbage of all calls before an allocation fails.
struct MemoryBudget<'a> {
    lua: &'a Lua,
    max_bytes: i64,
    added_bytes: i64,
}

impl MemoryBudget<'_> {
    /// Runs a slice of the call within the budget.
    fn run<R>(&mut self, slice: impl FnOnce() -> R) -> R {
        let before = self.lua.used_memory() as i64;
        let remaining = (self.max_bytes - self.added_bytes).max(0);
        let limit = (before + remaining).min(MAX_STATE_BYTES as i64);
        // The functions fail only in states with a foreign allocator. 0 means no limit.
        let _ = self.lua.set_memory_limit(limit.max(1) as usize);
        let result = slice();
        let _ = self.lua.set_memory_limit(MAX_STATE_BYTES);
        self.added_bytes += self.lua.used_memory() as i64 - before;
        result
    }

    /// Collects the garbage of a large call.
    fn collect(&self) {
        if self.added_bytes > MAX_UNCOLLECTED_BYTES {
            // The collection fails only in finalizers, and scripts have none.
            let _ = self.lua.gc_collect();
        }
    }
}

/// A running call. Its drop is a slice too, because it runs the handlers of `<close>` variables.
struct RunningCall<'a, F> {
    limits: &'a Limits,
    call: CallId,
    code: Option<Pin<Box<F>>>,
    /// The time of computing since the last wait for the host.
    used: Duration,
    budget: MemoryBudget<'a>,
}

impl<T, F: Future<Output = mlua::Result<T>>> RunningCall<'_, F> {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<mlua::Result<T>> {
        let Some(code) = &mut self.code else { return Poll::Ready(Err(too_long())) };
        let start = Instant::now();
        let (limits, call, used) = (self.limits, &self.call, self.used);
        let polled = self.budget.run(|| limits.slice(call, used, || code.as_mut().poll(context)));
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
        let code = self.code.take();
        self.limits.slice(&self.call, Duration::ZERO, || drop(code));
        self.budget.collect();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox;

    /// Runs `code`, which may add 4 MB. `wait` waits for the host, so it ends a slice.
    async fn run(state: &(Lua, Limits), code: &str) -> mlua::Result<()> {
        let (lua, limits) = state;
        let wait = lua.create_async_function(|lua, ()| async move {
            wait_for_host(&lua, tokio::task::yield_now()).await;
            Ok(())
        });
        lua.globals().set("wait", wait?)?;
        let run = lua.load(code).into_function()?.call_async(());
        limits
            .clone()
            .with_max_slice(Duration::from_secs(20))
            .run(lua, CallId::new("m", 1), 4 << 20, run)
            .await
    }

    fn state() -> (Lua, Limits) {
        sandbox::state(Arc::default()).unwrap()
    }

    #[tokio::test]
    async fn memory_of_a_call_is_limited_over_all_slices() {
        for (code, is_refused) in [
            ("local t = {} for i = 1, 100 do t[i] = ('x'):rep(1 << 16) end", true),
            ("local t = {} for i = 1, 100 do t[i] = ('x'):rep(1 << 16) wait() end", true),
            ("local t = {} for i = 1, 30 do t[i] = ('x'):rep(1 << 16) wait() end", false),
            ("for i = 1, 300 do local garbage = ('x'):rep(1 << 16) wait() end", false),
        ] {
            let result = run(&state(), code).await;
            let out_of_memory = matches!(result, Err(mlua::Error::MemoryError(_)));
            assert_eq!((out_of_memory, result.is_err()), (is_refused, is_refused), "{code}: {result:?}");
        }
    }

    #[tokio::test]
    async fn call_that_needs_too_much_memory_fails_alone() {
        let state = state();
        let modest = "local t = {} for i = 1, 20 do t[i] = ('x'):rep(1 << 16) wait() end";
        let greedy = "local t = {} for i = 1, 200 do t[i] = ('x'):rep(1 << 16) wait() end";
        let (first, greedy, second) =
            tokio::join!(run(&state, modest), run(&state, greedy), run(&state, modest));
        assert!(first.is_ok() && second.is_ok(), "{first:?} {second:?}");
        assert!(matches!(greedy, Err(mlua::Error::MemoryError(_))), "{greedy:?}");
    }
}
