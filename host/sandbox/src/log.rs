//! The host functions of the interface `log`.

use tightwad_core::printable;

use crate::bindings::tightwad::plugin::log::{Host, Level};
use crate::state::State;

/// The maximum length of a line. The host cuts longer lines.
const MAX_LOG_LINE_BYTES: usize = 4096;

/// The maximum number of lines of one call of the plugin. The host leaves out further lines.
pub(crate) const MAX_LOG_LINES: u32 = 100;

impl<T: Send> Host for State<T> {
    fn write(&mut self, level: Level, message: String) -> wasmtime::Result<()> {
        self.meter.count_call()?;
        let message = printable(&message, MAX_LOG_LINE_BYTES);
        let plugin = self.label.as_str();
        self.log_lines += 1;
        if self.log_lines > MAX_LOG_LINES {
            if self.log_lines == MAX_LOG_LINES + 1 {
                tracing::warn!(
                    plugin,
                    "wrote more than {MAX_LOG_LINES} lines in a call; the rest is left out"
                );
            }
            if level == Level::Error {
                self.last_error_line = Some(message);
            }
            return Ok(());
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Limits;

    #[test]
    fn line_has_no_control_characters_and_a_maximum_length() {
        let mut state = State::without_component("test@0.1.0", Limits::default(), ());
        state.write(Level::Error, format!("\u{1b}[2Jforged\n{}", "x".repeat(10_000))).unwrap();
        let line = state.last_error_line.take().unwrap();
        assert!(line.starts_with("\\u{1b}[2Jforged\\n") && line.len() <= MAX_LOG_LINE_BYTES + 3, "{line}");
    }

    #[test]
    fn lines_of_a_call_are_counted_until_the_next_call() {
        let mut state = State::without_component("test@0.1.0", Limits::default(), ());
        for _ in 0..=MAX_LOG_LINES {
            state.write(Level::Debug, "x".to_owned()).unwrap();
        }
        assert_eq!(state.log_lines, MAX_LOG_LINES + 1);
        state.write(Level::Error, "the reason of a trap".to_owned()).unwrap();
        assert_eq!(state.last_error_line.as_deref(), Some("the reason of a trap"));
        state.reset();
        assert_eq!(state.log_lines, 0);
    }
}
