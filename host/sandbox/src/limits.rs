//! What a component may use.

use std::time::Duration;

use wasmtime::{ResourceLimiter, Result};

/// How often the clock that interrupts components ticks.
pub(crate) const TICK: Duration = Duration::from_millis(10);

/// The limits of one instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Linear memory, all of an instance's together, in bytes.
    pub memory: usize,
    /// The same for policies: runtimes of other languages need more.
    pub policy_memory: usize,
    /// Computing between two host calls.
    pub compute: Duration,
    /// Host calls in all, besides `calls_a_token`.
    pub calls: u64,
    /// Host calls for each token that may be generated.
    pub calls_a_token: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory: 64 << 20,
            policy_memory: 256 << 20,
            compute: Duration::from_millis(250),
            calls: 1000,
            calls_a_token: 32,
        }
    }
}

impl Limits {
    /// Those of a policy's instance.
    pub(crate) fn of_policies(self) -> Self {
        Self { memory: self.policy_memory, ..self }
    }
}

/// Why an instance was stopped; travels inside wasmtime's error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Stopped {
    #[error("out of memory")]
    OutOfMemory,
    #[error("out of time")]
    TimedOut,
    #[error("it took too long, whatever it did")]
    TooLong,
    #[error("out of host calls")]
    Budget,
}

/// Counts what an instance uses.
#[derive(Debug)]
pub(crate) struct Meter {
    limits: Limits,
    ticks: u32,
    pub calls_left: u64,
    memory: usize,
}

impl Meter {
    pub(crate) fn new(limits: Limits, tokens: u32) -> Self {
        let calls_left = limits.calls + limits.calls_a_token * u64::from(tokens);
        Self { limits, ticks: 0, calls_left, memory: 0 }
    }

    pub(crate) fn limits(&self) -> Limits {
        self.limits
    }

    /// Gives an instance that is asked again what a new one has.
    pub(crate) fn renew(&mut self) {
        *self = Self { memory: self.memory, ..Self::new(self.limits, 0) };
    }

    /// Linear memory in use, in bytes.
    pub(crate) fn memory(&self) -> usize {
        self.memory
    }

    /// One tick of the clock while the component computes. The tick under way at the last host
    /// call is not the component's own.
    pub(crate) fn tick(&mut self) -> Result<()> {
        self.ticks += 1;
        if TICK * self.ticks.saturating_sub(1) > self.limits.compute {
            return Err(Stopped::TimedOut.into());
        }
        Ok(())
    }

    /// A host call: its own time does not count.
    pub(crate) fn call(&mut self) -> Result<()> {
        self.ticks = 0;
        match self.calls_left.checked_sub(1) {
            Some(left) => self.calls_left = left,
            None => return Err(Stopped::Budget.into()),
        }
        Ok(())
    }
}

/// How long a call may take, whatever it does: a guest with WASI can sleep, which is no computing.
pub(crate) const LONGEST: Duration = Duration::from_secs(2);

/// Ends a call that takes too long.
pub async fn whatever_it_does<T>(call: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(LONGEST, call).await.unwrap_or_else(|_| Err(Stopped::TooLong.into()))
}

/// What tables may hold: a mode needs a few dozen entries.
const TABLE: usize = 10_000;

impl ResourceLimiter for Meter {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> Result<bool> {
        let memory = self.memory + desired.saturating_sub(current);
        if memory > self.limits.memory {
            return Err(Stopped::OutOfMemory.into());
        }
        self.memory = memory;
        Ok(true)
    }

    fn table_growing(&mut self, _current: usize, desired: usize, _maximum: Option<usize>) -> Result<bool> {
        if desired > TABLE { Err(Stopped::OutOfMemory.into()) } else { Ok(true) }
    }
}
