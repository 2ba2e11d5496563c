//! Time and memory of scripts.
//!
//! Invariant: a slice of Lua code runs only under [`Limits::run`], which serializes slices and
//! notes when the current one began; the hook stops it when it takes too long.

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use mlua::{HookTriggers, Lua, VmState};

/// Memory of a script with all its running requests, in bytes.
pub(super) const MEMORY: usize = 256 << 20;
/// Computing of a script between two calls into the host.
const SLICE: Duration = Duration::from_secs(1);
/// Instructions between two looks at the clock.
const INSTRUCTIONS: u32 = 10_000;

/// The clock of one Lua state; cheap to clone.
#[derive(Clone)]
pub(super) struct Limits(Arc<Mutex<Instant>>, Arc<Mutex<()>>);

impl Limits {
    /// Puts `lua` under the limits.
    pub(super) fn impose(lua: &Lua) -> mlua::Result<Self> {
        lua.set_memory_limit(MEMORY)?;
        let limits = Self(Arc::new(Mutex::new(Instant::now())), Arc::default());
        let clock = limits.clone();
        // Inherited by every coroutine.
        lua.set_global_hook(HookTriggers::new().every_nth_instruction(INSTRUCTIONS), move |_, _| {
            clock.check().map(|()| VmState::Continue)
        })?;
        Ok(limits)
    }

    /// An error once the slice has taken too long. `pcall` and its kin call this too, because they
    /// would otherwise swallow the hook's error and go on.
    pub(super) fn check(&self) -> mlua::Result<()> {
        let began = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if began.elapsed() > SLICE {
            let message = format!("the script computed for more than {} s without a pause", SLICE.as_secs());
            return Err(mlua::Error::RuntimeError(message));
        }
        Ok(())
    }

    /// Runs Lua code; what it waits for does not count.
    pub(super) async fn run<T>(&self, lua: impl Future<Output = T>) -> T {
        let mut lua = pin!(lua);
        std::future::poll_fn(|context| {
            let _turn = self.1.lock().unwrap_or_else(PoisonError::into_inner);
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
            match lua.as_mut().poll(context) {
                Poll::Ready(value) => Poll::Ready(value),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }
}
