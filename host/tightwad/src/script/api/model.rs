//! `tw.model{}` and `tw.lookup{}`.

use std::path::Path;

use mlua::{Lua, Table};

use super::resolve;
use crate::script::factory::{LookupSpec, ModelSpec};
use crate::script::keys::Fields;

/// `tw.model{}`.
pub(super) fn model(lua: &Lua, table: &Table, folder: &Path) -> Result<ModelSpec, String> {
    let known = ["path", "name", "context", "slots", "queue", "threads", "gpu_layers"];
    let fields = Fields::new(lua, table, "tw.model", &known)?;
    let number = |key| fields.optional::<u32>(key, "a whole number");
    let path: String = fields.required("path", "a string, the GGUF file")?;
    Ok(ModelSpec {
        path: resolve(folder, &path),
        name: fields.optional("name", "a string")?,
        context: number("context")?,
        slots: number("slots")?,
        queue: number("queue")?,
        threads: number("threads")?,
        gpu_layers: number("gpu_layers")?,
    })
}

/// `tw.lookup{}`.
pub(super) fn lookup(lua: &Lua, table: &Table, _: &Path) -> Result<LookupSpec, String> {
    let fields = Fields::new(lua, table, "tw.lookup", &["name", "min_match"])?;
    let min_match = fields.optional::<u32>("min_match", "a whole number")?;
    if min_match.is_some_and(|n| !(1..=32).contains(&n)) {
        return Err("'min_match' in tw.lookup must be from 1 to 32".to_owned());
    }
    Ok(LookupSpec { name: fields.optional("name", "a string")?, min_match })
}
