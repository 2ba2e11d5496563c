//! The store of one instance, and the errors of calls in it.

use tightwad_core::printable;
use wasmtime::{PoolConcurrencyLimitError, Store, Trap, UpdateDeadline};

use crate::engine::PluginEngine;
use crate::error::PluginError;
use crate::limits::{CALL_TIMEOUT, ResourceMeter, StopReason};
use crate::state::{LiveInstance, State};

/// The maximum length of a plugin's own error message, in bytes. The message reaches clients and logs.
pub(crate) const MAX_PLUGIN_MESSAGE_BYTES: usize = 1000;

/// Creates a store with the limits of `meter`.
pub(crate) fn new_store<T: Send + 'static>(
    engine: &PluginEngine,
    label: &str,
    meter: ResourceMeter,
    data: T,
) -> Store<State<T>> {
    let state = State::new(label, meter, LiveInstance::count(&engine.instances), data);
    let mut store = Store::new(&engine.engine, state);
    store.limiter(|state| &mut state.meter);
    store.set_epoch_deadline(1);
    // The component yields in each epoch, so that other requests run on the same thread.
    store.epoch_deadline_callback(|mut store| {
        store.data_mut().meter.count_epoch()?;
        Ok(UpdateDeadline::Yield(1))
    });
    store
}

/// Converts wasmtime's `error` of a `call` that did not return.
pub fn call_error<T>(call: &'static str, error: &wasmtime::Error, state: &State<T>) -> PluginError {
    let plugin = state.label.clone();
    let limits = state.meter.limits();
    match error.downcast_ref::<StopReason>() {
        Some(StopReason::OutOfMemory) => {
            return PluginError::OutOfMemory { plugin, call, mebibytes: limits.memory_bytes >> 20 };
        }
        Some(StopReason::ComputeTimeout) => {
            let milliseconds = limits.compute_time.as_millis() as u64;
            return PluginError::ComputeTimeout { plugin, call, milliseconds };
        }
        Some(StopReason::TotalComputeTimeout) => {
            let milliseconds = state.meter.total_compute_time().as_millis() as u64;
            return PluginError::TotalComputeTimeout { plugin, call, milliseconds };
        }
        Some(StopReason::CallTimeout) => {
            let milliseconds = CALL_TIMEOUT.as_millis() as u64;
            return PluginError::CallTimeout { plugin, call, milliseconds };
        }
        Some(StopReason::OutOfCalls) => {
            let calls = limits.calls + state.meter.remaining_calls;
            return PluginError::OutOfCalls { plugin, call, calls };
        }
        None if error.is::<PoolConcurrencyLimitError>() => {
            return PluginError::NoFreeInstance { plugin, call, instances: limits.instances };
        }
        None => {}
    }
    let trap = error.downcast_ref::<Trap>().map_or_else(|| error.root_cause().to_string(), Trap::to_string);
    let reason = match state.last_error() {
        Some(message) => format!("{message} ({trap})"),
        None => trap,
    };
    PluginError::Trapped { plugin, call, reason: printable(&reason, MAX_PLUGIN_MESSAGE_BYTES) }
}
