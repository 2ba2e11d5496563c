//! The limits of a component.

use std::time::Duration;

use wasmtime::{ResourceLimiter, Result};

/// The time between two increments of the engine's epoch.
pub(crate) const EPOCH_INTERVAL: Duration = Duration::from_millis(10);

/// The time that a call of a policy may take, sleeping included. A guest with WASI can sleep, and sleeping does not
/// count as computing.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(2);

/// The maximum number of elements of a table. A mode needs a few dozen.
const MAX_TABLE_ELEMENTS: usize = 10_000;

/// The limits of one instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The size of all linear memories of an instance together.
    pub memory_bytes: usize,
    /// The size of all linear memories of a policy together. Runtimes of other languages need more memory.
    pub policy_memory_bytes: usize,
    /// The time that an instance may compute between two host calls.
    pub compute_time: Duration,
    /// The number of host calls, in addition to `calls_per_token`.
    pub calls: u64,
    /// The number of further host calls for each token that may be generated.
    pub calls_per_token: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes: 64 << 20,
            policy_memory_bytes: 256 << 20,
            compute_time: Duration::from_millis(250),
            calls: 1000,
            calls_per_token: 32,
        }
    }
}

impl Limits {
    /// The limits of a policy's instance.
    pub(crate) fn for_policies(self) -> Self {
        Self { memory_bytes: self.policy_memory_bytes, ..self }
    }
}

/// The reason why the host stopped an instance. wasmtime's error contains this reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StopReason {
    #[error("out of memory")]
    OutOfMemory,
    #[error("out of compute time")]
    ComputeTimeout,
    #[error("the call timed out")]
    CallTimeout,
    #[error("out of host calls")]
    OutOfCalls,
}

/// Measures the resources of one instance, and stops the instance at a limit.
#[derive(Debug)]
pub(crate) struct ResourceMeter {
    limits: Limits,
    /// Epochs since the last host call.
    epochs: u32,
    pub remaining_calls: u64,
    memory_bytes: usize,
}

impl ResourceMeter {
    /// A meter of an instance that may generate `tokens` tokens.
    pub(crate) fn new(limits: Limits, tokens: u32) -> Self {
        let remaining_calls = limits.calls + limits.calls_per_token * u64::from(tokens);
        Self { limits, epochs: 0, remaining_calls, memory_bytes: 0 }
    }

    pub(crate) fn limits(&self) -> Limits {
        self.limits
    }

    /// Restores the limits of a new instance. The instance keeps its memory.
    pub(crate) fn reset(&mut self) {
        *self = Self { memory_bytes: self.memory_bytes, ..Self::new(self.limits, 0) };
    }

    /// The linear memory in use.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.memory_bytes
    }

    /// Counts one epoch in which the component computed. The first epoch after a host call does not count, because
    /// this epoch began before the component computed.
    pub(crate) fn count_epoch(&mut self) -> Result<()> {
        self.epochs += 1;
        if EPOCH_INTERVAL * self.epochs.saturating_sub(1) > self.limits.compute_time {
            return Err(StopReason::ComputeTimeout.into());
        }
        Ok(())
    }

    /// Counts a host call. The time inside the host does not count as computing.
    pub(crate) fn count_call(&mut self) -> Result<()> {
        self.epochs = 0;
        match self.remaining_calls.checked_sub(1) {
            Some(remaining) => self.remaining_calls = remaining,
            None => return Err(StopReason::OutOfCalls.into()),
        }
        Ok(())
    }
}

impl ResourceLimiter for ResourceMeter {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> Result<bool> {
        let memory = self.memory_bytes + desired.saturating_sub(current);
        if memory > self.limits.memory_bytes {
            return Err(StopReason::OutOfMemory.into());
        }
        self.memory_bytes = memory;
        Ok(true)
    }

    fn table_growing(&mut self, _current: usize, desired: usize, _maximum: Option<usize>) -> Result<bool> {
        if desired > MAX_TABLE_ELEMENTS { Err(StopReason::OutOfMemory.into()) } else { Ok(true) }
    }
}

/// Ends `call` after 2 s.
pub async fn with_timeout<T>(call: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(CALL_TIMEOUT, call).await.unwrap_or_else(|_| Err(StopReason::CallTimeout.into()))
}
