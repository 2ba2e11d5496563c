//! The store of one instance, and what its end means.

use wasmtime::{Store, Trap, UpdateDeadline};

use crate::engine::PluginEngine;
use crate::error::PluginError;
use crate::limits::{LONGEST, Meter, Stopped};
use crate::state::{Alive, State};

/// A store under the limits of `meter`.
pub(crate) fn open<T: Send + 'static>(
    engine: &PluginEngine,
    label: &str,
    meter: Meter,
    data: T,
) -> Store<State<T>> {
    let state = State::new(label, meter, Alive::count(&engine.instances), data);
    let mut store = Store::new(&engine.engine, state);
    store.limiter(|state| &mut state.meter);
    store.set_epoch_deadline(1);
    // Each tick gives other requests a turn.
    store.epoch_deadline_callback(|mut store| {
        store.data_mut().meter.tick()?;
        Ok(UpdateDeadline::Yield(1))
    });
    store
}

/// Why `call` did not return.
pub fn call_error<T>(call: &'static str, error: &wasmtime::Error, state: &State<T>) -> PluginError {
    let plugin = state.name.clone();
    let limits = state.meter.limits();
    match error.downcast_ref::<Stopped>() {
        Some(Stopped::OutOfMemory) => {
            return PluginError::OutOfMemory { plugin, call, mebibytes: limits.memory >> 20 };
        }
        Some(stopped @ (Stopped::TimedOut | Stopped::TooLong)) => {
            let limit = if *stopped == Stopped::TooLong { LONGEST } else { limits.compute };
            let milliseconds = limit.as_millis() as u64;
            return PluginError::TimedOut { plugin, call, milliseconds };
        }
        Some(Stopped::Budget) => {
            let calls = limits.calls + state.meter.calls_left;
            return PluginError::Budget { plugin, call, calls };
        }
        None => {}
    }
    let trap = error.downcast_ref::<Trap>().map_or_else(|| error.root_cause().to_string(), Trap::to_string);
    let reason = match state.last_words() {
        Some(words) => format!("{words} ({trap})"),
        None => trap,
    };
    PluginError::Trapped { plugin, call, reason }
}
