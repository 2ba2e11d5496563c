//! The host's side of `log`.

use crate::bindings::tightwad::plugin::log::{Host, Level};
use crate::state::State;

/// Longest line that is kept.
const LONGEST: usize = 4096;

impl<T: Send> Host for State<T> {
    fn write(&mut self, level: Level, mut message: String) -> wasmtime::Result<()> {
        self.meter.call()?;
        if message.len() > LONGEST {
            message.truncate(message.floor_char_boundary(LONGEST));
        }
        let plugin = self.name.as_str();
        match level {
            Level::Debug => tracing::debug!(plugin, "{message}"),
            Level::Info => tracing::info!(plugin, "{message}"),
            Level::Warn => tracing::warn!(plugin, "{message}"),
            Level::Error => {
                tracing::error!(plugin, "{message}");
                self.last_words = Some(message);
            }
        }
        Ok(())
    }
}
