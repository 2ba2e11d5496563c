//! The host functions of the interface `clock`.

use std::sync::LazyLock;
use std::time::Instant;

use crate::bindings::tightwad::plugin::clock::Host;
use crate::state::State;

/// The start of the clock, which is the same for all plugins of the process.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

impl<T: Send> Host for State<T> {
    fn now(&mut self) -> wasmtime::Result<u64> {
        self.meter.count_call()?;
        Ok(u64::try_from(START.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }
}
