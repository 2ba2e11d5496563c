//! Makes Lua states without files, processes, bytecode and finalizers.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use mlua::{Function, Lua, LuaOptions, StdLib, Table, Value, Variadic};

use crate::limits::{Limits, Stopwatch};

/// Functions of Lua's base library that scripts do not have: files, bytecode and the garbage collector.
const REMOVED: [&str; 4] = ["dofile", "loadfile", "load", "collectgarbage"];

/// Wraps the functions that catch errors, so that they cannot catch the time limit. Refuses finalizers, which run
/// outside the limit.
const GUARD: &str = r#"
local check = ...
local function guarded(f)
  return function(...)
    local function after(...) check() return ... end
    return after(f(...))
  end
end
pcall = guarded(pcall)
-- Lua runs a message handler without hooks, so the wrapper runs the handler after the call.
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
-- A script may replace these globals, so the guard keeps its own references.
local set, type, rawget, error = setmetatable, type, rawget, error
function setmetatable(object, meta)
  if type(meta) == "table" and rawget(meta, "__gc") ~= nil then
    error("'__gc' is not available in scripts", 2)
  end
  return set(object, meta)
end
"#;

/// Makes a state under limits.
pub(crate) fn state(stopwatch: Arc<Stopwatch>) -> mlua::Result<(Lua, Limits)> {
    let libraries = StdLib::TABLE | StdLib::STRING | StdLib::MATH | StdLib::UTF8 | StdLib::COROUTINE;
    let lua = Lua::new_with(libraries, LuaOptions::default())?;
    let limits = Limits::apply(&lua, stopwatch)?;
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

/// Sets `require`, which finds the module `tightwad` and Lua files beside the script.
pub(crate) fn set_require(lua: &Lua, folder: &Path, tw: &Table) -> mlua::Result<()> {
    let (folder, tw) = (folder.to_owned(), tw.clone());
    let loaded = lua.create_table()?;
    let require = lua.create_function(move |lua, name: String| {
        if name == "tightwad" {
            return Ok(Value::Table(tw.clone()));
        }
        let cached: Value = loaded.raw_get(name.as_str())?;
        if !cached.is_nil() {
            return Ok(cached);
        }
        let path = module_path(&folder, &name)?;
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

/// The file of a module: in the script's folder or below it, never outside.
fn module_path(folder: &Path, name: &str) -> mlua::Result<PathBuf> {
    let plain = |part: &str| {
        !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
    };
    if !name.split('.').all(plain) {
        return Err(mlua::Error::RuntimeError(format!(
            "'{name}' is not a module; a module is a file beside the script, as in require \"routes\""
        )));
    }
    let mut path = folder.to_owned();
    path.extend(name.split('.'));
    path.set_extension("lua");
    Ok(path)
}
