//! A Lua state without files, processes, bytecode or finalizers.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use mlua::{Function, Lua, LuaOptions, StdLib, Table, Value, Variadic};

use crate::limits::{Limits, Stopwatch};

/// What Lua's own base library has and scripts do not: files, bytecode, the collector.
const REMOVED: [&str; 4] = ["dofile", "loadfile", "load", "collectgarbage"];

/// Wraps what would swallow the time limit, and refuses what would escape it.
const GUARD: &str = r#"
local check = ...
local function guarded(f)
  return function(...)
    local function after(...) check() return ... end
    return after(f(...))
  end
end
pcall = guarded(pcall)
-- Lua calls a message handler where no hook reaches: here it is called afterwards.
local protected = pcall
function xpcall(f, handler, ...)
  local function after(ok, ...)
    if ok then return ok, ... end
    return ok, handler(...)
  end
  return after(protected(f, ...))
end
coroutine.resume, coroutine.close = guarded(coroutine.resume), guarded(coroutine.close)
string.dump = nil
-- A script may replace these, so the guard keeps its own.
local set, type, rawget, error = setmetatable, type, rawget, error
function setmetatable(object, meta)
  if type(meta) == "table" and rawget(meta, "__gc") ~= nil then
    error("'__gc' is not available in scripts", 2)
  end
  return set(object, meta)
end
"#;

/// A new state under limits.
pub(crate) fn state(stopwatch: Arc<Stopwatch>) -> mlua::Result<(Lua, Limits)> {
    let libraries = StdLib::TABLE | StdLib::STRING | StdLib::MATH | StdLib::UTF8 | StdLib::COROUTINE;
    let lua = Lua::new_with(libraries, LuaOptions::default())?;
    let limits = Limits::impose(&lua, stopwatch)?;
    let globals = lua.globals();
    for name in REMOVED {
        globals.raw_remove(name)?;
    }
    let clock = limits.clone();
    let check = lua.create_function(move |_, ()| clock.check())?;
    lua.load(GUARD).set_name("=sandbox").call::<()>(check)?;
    let print = lua.create_function(|lua, values: Variadic<Value>| {
        let show: Function = lua.globals().get("tostring")?;
        let texts = values.into_iter().map(|value| show.call::<String>(value));
        tracing::info!(target: "script", "{}", texts.collect::<mlua::Result<Vec<_>>>()?.join("\t"));
        Ok(())
    })?;
    globals.raw_set("print", print)?;
    Ok((lua, limits))
}

/// `require`: the module `tightwad`, and the script's neighbours.
pub(crate) fn set_require(lua: &Lua, folder: &Path, tw: &Table) -> mlua::Result<()> {
    let (folder, tw) = (folder.to_owned(), tw.clone());
    let loaded = lua.create_table()?;
    let require = lua.create_function(move |lua, name: String| {
        if name == "tightwad" {
            return Ok(Value::Table(tw.clone()));
        }
        let known: Value = loaded.raw_get(name.as_str())?;
        if !known.is_nil() {
            return Ok(known);
        }
        let path = neighbour(&folder, &name)?;
        let source = std::fs::read(&path)
            .map_err(|error| mlua::Error::RuntimeError(format!("cannot read {}: {error}", path.display())))?;
        let chunk = lua.load(source).set_name(format!("@{}", path.display()));
        let value: Value = chunk.set_mode(mlua::chunk::ChunkMode::Text).call(())?;
        let value = if value.is_nil() { Value::Boolean(true) } else { value };
        loaded.raw_set(name, value.clone())?;
        Ok(value)
    })?;
    lua.globals().raw_set("require", require)
}

/// The file of a module: beside the script or in a folder there, never outside.
fn neighbour(folder: &Path, name: &str) -> mlua::Result<PathBuf> {
    let plain = |part: &str| {
        !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
    };
    if !name.split('.').all(plain) {
        return Err(mlua::Error::RuntimeError(format!(
            "'{name}' is no module: modules are files beside the script, as in require \"routes\""
        )));
    }
    let mut path = folder.to_owned();
    path.extend(name.split('.'));
    path.set_extension("lua");
    Ok(path)
}
