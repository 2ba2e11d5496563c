//! `tw.log`.

use mlua::{Lua, Table, Value};
use tightwad_core::printable;

use crate::keys::describe;
use crate::request::text_of;

/// The maximum length of a line, in bytes. The host cuts longer lines.
const MAX_LOG_LINE_BYTES: usize = 4096;

/// The severity of a line.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

/// Writes a line of a script to the host's log.
pub(crate) fn write(level: Level, text: &str) {
    let line = printable(text, MAX_LOG_LINE_BYTES);
    match level {
        Level::Debug => tracing::debug!(target: "script", "{line}"),
        Level::Info => tracing::info!(target: "script", "{line}"),
        Level::Warn => tracing::warn!(target: "script", "{line}"),
        Level::Error => tracing::error!(target: "script", "{line}"),
    }
}

/// Makes a table with one function per log level.
pub(crate) fn table(lua: &Lua) -> mlua::Result<Table> {
    let log = lua.create_table()?;
    let levels =
        [("debug", Level::Debug), ("info", Level::Info), ("warn", Level::Warn), ("error", Level::Error)];
    for (name, level) in levels {
        let function = lua.create_function(move |_, value: Value| match text_of(&value) {
            Some(text) => {
                write(level, &text);
                Ok(())
            }
            None => Err(mlua::Error::RuntimeError(format!(
                "tw.log.{name} takes a string, not {}",
                describe(&value)
            ))),
        })?;
        log.raw_set(name, function)?;
    }
    Ok(log)
}
