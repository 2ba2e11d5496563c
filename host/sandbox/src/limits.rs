//! The limits of a component.

use std::time::Duration;

use wasmtime::{ResourceLimiter, Result};

/// The time between two increments of the engine's epoch.
pub(crate) const EPOCH_INTERVAL: Duration = Duration::from_millis(10);

/// The time that a call of a policy may take, sleeping included. A guest with WASI can sleep, and sleeping does not
/// count as computing.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(2);

/// The maximum number of live instances of all plugins. A call beyond it fails, and the host continues without the
/// plugin.
const DEFAULT_MAX_INSTANCES: u32 = 1000;

/// The maximum number of resources, such as pending drafts and WASI streams, that an instance holds.
pub(crate) const MAX_RESOURCES: usize = 10_000;

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
    /// The time that an instance may compute in a call, in addition to `total_compute_time_per_token`.
    pub total_compute_time: Duration,
    /// The further time that an instance may compute for each token that may be generated. The time is wall-clock
    /// time, so it includes the time in which the machine runs other threads.
    pub total_compute_time_per_token: Duration,
    /// The number of host calls, in addition to `calls_per_token`.
    pub calls: u64,
    /// The number of further host calls for each token that may be generated.
    pub calls_per_token: u64,
    /// The number of live instances of all plugins.
    pub instances: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes: 64 << 20,
            policy_memory_bytes: 256 << 20,
            compute_time: Duration::from_millis(250),
            total_compute_time: Duration::from_millis(2500),
            total_compute_time_per_token: Duration::from_millis(25),
            calls: 1000,
            calls_per_token: 32,
            instances: DEFAULT_MAX_INSTANCES,
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
    #[error("out of total compute time")]
    TotalComputeTimeout,
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
    total_compute_time: Duration,
    remaining_compute_time: Duration,
    memory_bytes: usize,
}

impl ResourceMeter {
    /// A meter of an instance that may generate `tokens` tokens.
    pub(crate) fn new(limits: Limits, tokens: u32) -> Self {
        let remaining_calls = limits.calls + limits.calls_per_token * u64::from(tokens);
        let total_compute_time =
            limits.total_compute_time + limits.total_compute_time_per_token.saturating_mul(tokens);
        let remaining_compute_time = total_compute_time;
        Self {
            limits,
            epochs: 0,
            remaining_calls,
            total_compute_time,
            remaining_compute_time,
            memory_bytes: 0,
        }
    }

    /// The time that the instance may compute in its call.
    pub(crate) fn total_compute_time(&self) -> Duration {
        self.total_compute_time
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
        if self.epochs == 1 {
            return Ok(());
        }
        if EPOCH_INTERVAL * (self.epochs - 1) > self.limits.compute_time {
            return Err(StopReason::ComputeTimeout.into());
        }
        let remaining = self.remaining_compute_time.checked_sub(EPOCH_INTERVAL);
        self.remaining_compute_time = remaining.ok_or(StopReason::TotalComputeTimeout)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The reason that ends a loop of `epochs` epochs of compute after each host call.
    fn stop_reason(limits: Limits, tokens: u32, epochs: u32) -> Option<StopReason> {
        let mut meter = ResourceMeter::new(limits, tokens);
        loop {
            if let Err(error) = meter.count_call() {
                return error.downcast().ok();
            }
            for _ in 0..epochs {
                if let Err(error) = meter.count_epoch() {
                    return error.downcast().ok();
                }
            }
        }
    }

    #[test]
    fn compute_is_limited_between_calls_and_in_total() {
        let limits = Limits::default();
        assert_eq!(stop_reason(limits, 0, 100), Some(StopReason::ComputeTimeout));
        assert_eq!(stop_reason(limits, 0, 20), Some(StopReason::TotalComputeTimeout));
        assert_eq!(stop_reason(limits, 0, 1), Some(StopReason::OutOfCalls), "the first epoch does not count");
        // A driver that loses two time slices per token stays within its limits.
        let mut meter = ResourceMeter::new(limits, 1000);
        for _ in 0..1000 {
            for _ in 0..3 {
                meter.count_epoch().unwrap();
            }
            meter.count_call().unwrap();
        }
    }
}
