//! The table `tw`.

use std::path::Path;
use std::sync::Arc;

use mlua::{Lua, Table};

use crate::api::makers::Makers;
use crate::api::nodes::FoundNode;
use crate::api::{consensus, gate, log, model, nodes, pooling, speculation, text};
use crate::factory::Factory;

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

/// `file:line: ` of a level of the stack; the file alone for a tail call, which has no level of its own.
fn place(lua: &Lua, shown: &str, level: usize) -> String {
    // The function that asks is a level itself, which the caller's count leaves out.
    let at = lua.inspect_stack(level - 1, |debug| {
        let source = debug.source().short_src.map(|source| source.to_string());
        source.zip(debug.current_line())
    });
    at.flatten().map_or_else(|| format!("{shown}: "), |(source, line)| format!("{source}:{line}: "))
}
