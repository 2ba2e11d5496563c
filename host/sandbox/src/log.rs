//! The host functions of the interface `log`.

use crate::bindings::tightwad::plugin::log::{Host, Level};
use crate::state::State;

/// The maximum length of a line. The host cuts longer lines.
const MAX_LOG_LINE_BYTES: usize = 4096;

impl<T: Send> Host for State<T> {
    fn write(&mut self, level: Level, mut message: String) -> wasmtime::Result<()> {
        self.meter.count_call()?;
        if message.len() > MAX_LOG_LINE_BYTES {
            message.truncate(message.floor_char_boundary(MAX_LOG_LINE_BYTES));
        }
        let plugin = self.label.as_str();
        match level {
            Level::Debug => tracing::debug!(plugin, "{message}"),
            Level::Info => tracing::info!(plugin, "{message}"),
            Level::Warn => tracing::warn!(plugin, "{message}"),
            Level::Error => {
                tracing::error!(plugin, "{message}");
                self.last_error_line = Some(message);
            }
        }
        Ok(())
    }
}
