//! `require`: the module `tightwad`, and Lua files beside the script.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use mlua::{Lua, Table, Value};

use crate::source::Source;

/// Stands for a module whose file runs, in the table of loaded modules.
const RUNNING: bool = false;

/// Sets `require`. A module can call functions of `tw`, which wait.
pub(crate) fn set_require(lua: &Lua, source: &Arc<Source>, tw: &Table) -> mlua::Result<()> {
    let (source, tw) = (source.clone(), tw.clone());
    let loaded = lua.create_table()?;
    let require = lua.create_async_function(move |lua, name: mlua::LuaString| {
        let (source, tw, loaded) = (source.clone(), tw.clone(), loaded.clone());
        async move {
            let name = name.to_string_lossy();
            if name == "tightwad" {
                return Ok(Value::Table(tw));
            }
            match loaded.raw_get(name.as_str())? {
                Value::Nil => {}
                Value::Boolean(RUNNING) => return Err(cyclic(&name)),
                module => return Ok(module),
            }
            loaded.raw_set(name.as_str(), RUNNING)?;
            let module = run_module(&lua, &source, &name).await;
            let cached = module.as_ref().map_or(Value::Nil, Clone::clone);
            loaded.raw_set(name.as_str(), cached)?;
            module
        }
    })?;
    lua.globals().raw_set("require", require)
}

/// Runs the file of a module, and returns its value.
async fn run_module(lua: &Lua, source: &Source, name: &str) -> mlua::Result<Value> {
    let path = module_path(&source.folder, name)?;
    let text = source.module(&path)?;
    let chunk = lua.load(text.as_slice()).set_name(format!("@{}", path.display()));
    let value: Value = chunk.set_mode(mlua::chunk::ChunkMode::Text).call_async(()).await?;
    Ok(match value {
        Value::Nil | Value::Boolean(RUNNING) => Value::Boolean(true),
        value => value,
    })
}

fn cyclic(name: &str) -> mlua::Error {
    mlua::Error::RuntimeError(format!(
        "the module '{name}' requires itself, directly or through another module. Move the shared part into a third module"
    ))
}

/// The file of a module: in the script's folder or below it, never outside.
fn module_path(folder: &Path, name: &str) -> mlua::Result<PathBuf> {
    let plain = |part: &str| {
        !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
    };
    if !name.split('.').all(plain) {
        let name = tightwad_core::printable(name, 200);
        return Err(mlua::Error::RuntimeError(format!(
            "'{name}' is not a module; a module is a file beside the script, as in require \"routes\""
        )));
    }
    let mut path = folder.to_owned();
    path.extend(name.split('.'));
    path.set_extension("lua");
    Ok(path)
}

#[cfg(test)]
mod tests;
