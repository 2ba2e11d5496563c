//! Recovery of the engine after a panic of its thread: a new context, and the sequences continue from their committed
//! tokens.
//!
//! Sampling depends only on seed and position, so the output does not change. A session sees only a pause.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::mpsc::RecvTimeoutError;
use std::thread;
use std::time::{Duration, Instant};

use tightwad_core::{Backoff, Health};

use crate::error::{LoadError, SessionError};
use crate::scheduler::context::BatchContext;
use crate::scheduler::event_loop::{EngineState, Scheduler};

/// The number of consecutive failures to restart after which the requests fail.
const MAX_RESTART_FAILURES: u32 = 3;
/// The delay between two attempts to restart.
pub(crate) const RESTART_BACKOFF: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(60));

/// Runs the engine with `context`, and after a panic with contexts of `rebuild`, until all sessions and all handles of
/// the engine are dropped.
pub(crate) fn run<'w>(
    context: BatchContext<'w>,
    rebuild: impl Fn() -> Result<BatchContext<'w>, LoadError>,
    state: &mut EngineState,
) {
    let mut next = Some(context);
    let mut failures = 0;
    loop {
        let context = match next.take().map_or_else(&rebuild, Ok) {
            Ok(context) => context,
            Err(error) => {
                failures += 1;
                if !wait(failures, &error.to_string(), state) {
                    return;
                }
                continue;
            }
        };
        state.stats.set_health(Health::Ready);
        let passes = state.stats.forward_passes();
        let mut scheduler = Scheduler::new(context, state);
        let Err(panic) = catch_unwind(AssertUnwindSafe(|| scheduler.run())) else { return };
        // Frees the memory of the context, which a new one needs.
        drop(scheduler);
        let reason = message(&*panic);
        tracing::error!(reason, "the engine panicked; it restarts with a new context");
        state.stats.restarts.fetch_add(1, Ordering::Relaxed);
        state.stats.set_health(Health::Loading);
        // A sequence that causes panics fails soon by itself. Any other cause may repeat at once.
        let blames_sequence = state.sequences.recover(&reason);
        if blames_sequence || state.stats.forward_passes() > passes {
            failures = 0;
            continue;
        }
        failures += 1;
        if !wait(failures, &reason, state) {
            return;
        }
    }
}

/// Waits before the next attempt to restart. After several failures, requests fail during the wait. Returns false if all
/// sessions and all handles of the engine are dropped.
fn wait(failures: u32, reason: &str, state: &mut EngineState) -> bool {
    let delay = state.restart_backoff.delay(failures - 1);
    if failures < MAX_RESTART_FAILURES {
        // The commands wait in their channel.
        thread::park_timeout(delay);
        return true;
    }
    tracing::error!(reason, failures, seconds = delay.as_secs_f32(), "the engine does not restart");
    state.stats.set_health(Health::Failing(reason.to_owned()));
    let error = SessionError::Failing(reason.to_owned());
    state.sequences.fail_all(&error);
    let deadline = Instant::now() + delay;
    loop {
        match state.command_rx.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(command) => state.sequences.refuse(command, &error),
            Err(RecvTimeoutError::Timeout) => return true,
            Err(RecvTimeoutError::Disconnected) => return false,
        }
    }
}

/// The message of a panic.
fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("a panic without a message").to_owned()
}

#[cfg(test)]
mod tests;
