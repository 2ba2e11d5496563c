//! `tw.log`.

use mlua::{Lua, Table};

/// Makes a table with one function per log level.
pub(crate) fn table(lua: &Lua) -> mlua::Result<Table> {
    let log = lua.create_table()?;
    log.raw_set(
        "debug",
        lua.create_function(|_, text: String| {
            tracing::debug!(target: "script", "{text}");
            Ok(())
        })?,
    )?;
    log.raw_set(
        "info",
        lua.create_function(|_, text: String| {
            tracing::info!(target: "script", "{text}");
            Ok(())
        })?,
    )?;
    log.raw_set(
        "warn",
        lua.create_function(|_, text: String| {
            tracing::warn!(target: "script", "{text}");
            Ok(())
        })?,
    )?;
    log.raw_set(
        "error",
        lua.create_function(|_, text: String| {
            tracing::error!(target: "script", "{text}");
            Ok(())
        })?,
    )?;
    Ok(log)
}
