//! The table `tw`.

use crate::api::nodes::FoundNode;

pub(crate) mod consensus;
pub(crate) mod gate;
pub(crate) mod log;
pub(crate) mod model;
pub(crate) mod nodes;
pub(crate) mod pooling;
pub(crate) mod serve;
pub(crate) mod speculation;
pub(crate) mod stack;
pub(crate) mod text;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::Poll;

use futures_util::poll;
use mlua::{Function, IntoLua, Lua, Table};
use tightwad_core::SharedBackend;

use crate::factory::Factory;
use crate::handle::Handle;
use crate::limits::waiting;

/// Calls each function with the user's table, and raises what it refuses at the user's line. Tail
/// calls would lose that line.
const PRELUDE: &str = r#"
local tw, raw, where = ...
for name, f in pairs(raw) do
  tw[name] = function(spec)
    local at = where(2)
    if type(spec) ~= "table" then
      error(at .. "tw." .. name .. " takes a table, as in tw." .. name .. "{ ... }", 0)
    end
    local value, err = f(spec)
    if err then error(at .. err, 0) end
    return value
  end
end
"#;

/// Builds `tw` for the script that errors call `shown`.
pub(crate) fn table(
    lua: &Lua,
    shown: &str,
    folder: &Path,
    factory: &Arc<dyn Factory>,
    settings: &[(String, String)],
) -> mlua::Result<Table> {
    let tw = lua.create_table()?;
    tw.raw_set("version", env!("CARGO_PKG_VERSION"))?;
    tw.raw_set("settings", lua.create_table_from(settings.iter().cloned())?)?;
    tw.raw_set("log", log::table(lua)?)?;
    let raw = lua.create_table()?;
    let makers = Makers { lua, folder, factory };
    raw.raw_set("model", makers.backend(model::model, |f, spec| async move { f.model(spec).await })?)?;
    raw.raw_set("lookup", makers.backend(model::lookup, |f, spec| async move { f.lookup(spec).await })?)?;
    raw.raw_set("node", makers.backend(nodes::node, |f, spec| async move { f.node(spec).await })?)?;
    let pool = makers.backend(pooling::pooling, |f, spec| async move { f.pooling(spec).await })?;
    raw.raw_set("pooling", pool)?;
    for (name, read) in text::SERVERS {
        raw.raw_set(name, makers.backend(read, |f, spec| async move { f.text_server(spec).await })?)?;
    }
    let speculate = makers.backend(speculation::spec, |f, spec| async move { f.speculation(spec).await })?;
    raw.raw_set("speculation", speculate)?;
    let agree = makers.backend(consensus::spec, |f, spec| async move { f.consensus(spec).await })?;
    raw.raw_set("consensus", agree)?;
    raw.raw_set("gate", makers.backend(gate::spec, |f, spec| async move { f.gate(spec).await })?)?;
    raw.raw_set(
        "discover",
        makers.value(nodes::discovery, |f, wait| async move {
            Ok(f.discover(wait).await?.into_iter().map(FoundNode).collect::<Vec<_>>())
        })?,
    )?;
    raw.raw_set("serve", makers.serve()?)?;
    let shown = shown.to_owned();
    let place = lua.create_function(move |lua, level: usize| Ok(place(lua, &shown, level + 1)))?;
    lua.load(PRELUDE).set_name("=tightwad").call::<()>((tw.clone(), raw, place))?;
    Ok(tw)
}

/// What the functions of `tw` are made with.
struct Makers<'a> {
    lua: &'a Lua,
    folder: &'a Path,
    factory: &'a Arc<dyn Factory>,
}

/// Reads a table of a script: what it asks for, or what is wrong with it.
type Read<S> = fn(&Lua, &Table, &Path) -> Result<S, String>;

impl Makers<'_> {
    /// A function that makes a backend of a table.
    fn backend<S, F>(&self, read: Read<S>, make: fn(Arc<dyn Factory>, S) -> F) -> mlua::Result<Function>
    where
        S: Send + 'static,
        F: Future<Output = Result<SharedBackend, String>> + Send + 'static,
    {
        self.function(read, make, |_, backend| Ok(Handle(backend)))
    }

    /// A function that makes any value of a table.
    fn value<S, T, F>(&self, read: Read<S>, make: fn(Arc<dyn Factory>, S) -> F) -> mlua::Result<Function>
    where
        S: Send + 'static,
        T: IntoLua + Send + 'static,
        F: Future<Output = Result<T, String>> + Send + 'static,
    {
        self.function(read, make, |_, value| Ok(value))
    }

    /// The function that ends a script.
    fn serve(&self) -> mlua::Result<Function> {
        let folder = self.folder.to_owned();
        self.lua.create_function(move |lua, table: Table| {
            Ok(match serve::served(lua, &table, &folder) {
                Ok(served) => (Some(served), None),
                Err(error) => (None, Some(error)),
            })
        })
    }

    /// Returns the value, or nil and why not.
    fn function<S, T, F, V>(
        &self,
        read: Read<S>,
        make: fn(Arc<dyn Factory>, S) -> F,
        shown: fn(&Lua, T) -> mlua::Result<V>,
    ) -> mlua::Result<Function>
    where
        S: Send + 'static,
        T: Send + 'static,
        V: IntoLua + 'static,
        F: Future<Output = Result<T, String>> + Send + 'static,
    {
        let (folder, factory) = (self.folder.to_owned(), self.factory.clone());
        self.lua.create_async_function(move |lua, table: Table| {
            let (spec, factory) = (read(&lua, &table, &folder), factory.clone());
            async move {
                let made = match spec {
                    Ok(spec) => elsewhere(&lua, make(factory, spec)).await,
                    Err(error) => Err(error),
                };
                Ok(match made {
                    Ok(value) => (Some(shown(&lua, value)?), None),
                    Err(error) => (None, Some(error)),
                })
            }
        })
    }
}

/// Waits for what the host makes, on the runtime's threads: this one is the script's. What takes no time is made
/// here, so that a loop without a pause is one.
async fn elsewhere<T: Send + 'static>(
    lua: &Lua,
    made: impl Future<Output = Result<T, String>> + Send + 'static,
) -> Result<T, String> {
    let mut made = Box::pin(made);
    if let Poll::Ready(made) = poll!(&mut made) {
        return made;
    }
    waiting(lua, tokio::spawn(made)).await.unwrap_or_else(|error| Err(error.to_string()))
}

/// `file:line: ` of a level of the stack; the file alone for a tail call, which has no level of its own.
fn place(lua: &Lua, shown: &str, level: usize) -> String {
    // The function that asks is a level itself, which the caller's count leaves out.
    let at = lua.inspect_stack(level - 1, |debug| {
        let source = debug.source().short_src.map(|source| source.to_string());
        source.zip(debug.current_line())
    });
    at.flatten().map_or_else(|| format!("{shown}: "), |(source, line)| format!("{source}:{line}: "))
}

/// Relative paths start at the script, `~` is the user's home.
fn resolve(folder: &Path, path: &str) -> PathBuf {
    match (path.strip_prefix("~/"), std::env::var_os("HOME")) {
        (Some(rest), Some(home)) => PathBuf::from(home).join(rest),
        _ => folder.join(path),
    }
}
