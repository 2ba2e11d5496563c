//! Makes Lua states without files, processes, bytecode and finalizers.

use std::sync::Arc;

use mlua::{Function, Lua, LuaOptions, LuaString, StdLib, Value, Variadic};

use crate::api::log;
use crate::limits::{Limits, Stopwatch};

/// Functions of Lua's base library that scripts do not have: files, bytecode and the garbage collector.
const REMOVED: [&str; 4] = ["dofile", "loadfile", "load", "collectgarbage"];

/// Wraps the functions that catch errors, so that they cannot catch the time limit. Refuses finalizers, which run
/// outside the limit. A coroutine passes the waits of host functions on, so that they work in coroutines.
const GUARD: &str = r#"
local check, pending = ...
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
-- A script may replace these globals, so the guard keeps its own references.
local set, type, rawget, rawequal, error = setmetatable, type, rawget, rawequal, error
local yield, resume, create, close = coroutine.yield, coroutine.resume, coroutine.create, coroutine.close
function coroutine.resume(co, ...)
  local function after(ok, first, ...)
    if ok and rawequal(first, pending) then
      yield(pending)
      return after(resume(co))
    end
    check()
    return ok, first, ...
  end
  return after(resume(co, ...))
end
local guarded_resume = coroutine.resume
function coroutine.wrap(f)
  local co = create(f)
  local function after(ok, ...)
    if ok then return ... end
    close(co)
    error((...), 0)
  end
  return function(...) return after(guarded_resume(co, ...)) end
end
coroutine.close = guarded(close)
string.dump = nil
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
    lua.load(GUARD).set_name("=sandbox").call::<()>((check, Lua::poll_pending()))?;
    // A script may replace the global.
    let show: Function = globals.get("tostring")?;
    let print = lua.create_function(move |_, values: Variadic<Value>| {
        let texts = values.into_iter().map(|value| show.call::<LuaString>(value));
        let texts = texts.map(|text| text.map(|text| text.to_string_lossy()));
        log::write(log::Level::Info, &texts.collect::<mlua::Result<Vec<_>>>()?.join("\t"));
        Ok(())
    })?;
    globals.raw_set("print", print)?;
    Ok((lua, limits))
}
