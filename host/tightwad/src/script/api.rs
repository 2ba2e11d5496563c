//! The table `tw`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use mlua::{Function, Lua, LuaSerdeExt, Table, Value};

use super::factory::{Factory, LookupSpec, ModelSpec, SpeculationSpec};
use super::handle::Handle;
use super::keys::{Fields, describe};
use super::limits::Limits;
use crate::backend::{Backend, Capabilities, SharedBackend};

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

/// What `tw.serve` was given.
#[derive(Clone)]
pub(super) struct Served {
    pub listen: Option<String>,
    pub token: Option<String>,
    pub models: Vec<(String, Value)>,
}

impl mlua::UserData for Served {}

/// Builds `tw`.
pub(super) fn table(
    lua: &Lua,
    folder: &Path,
    factory: &Arc<dyn Factory>,
    settings: &[(String, String)],
    limits: &Limits,
) -> mlua::Result<Table> {
    let tw = lua.create_table()?;
    tw.raw_set("version", env!("CARGO_PKG_VERSION"))?;
    tw.raw_set("settings", lua.create_table_from(settings.iter().cloned())?)?;
    tw.raw_set("log", log(lua)?)?;
    let raw = lua.create_table()?;
    raw.raw_set("model", model(lua, folder, factory, limits)?)?;
    raw.raw_set("lookup", lookup(lua, factory)?)?;
    raw.raw_set("speculation", speculation(lua, folder, factory)?)?;
    raw.raw_set("serve", serve(lua)?)?;
    let place = lua.create_function(|lua, level: usize| Ok(place(lua, level + 1)))?;
    lua.load(PRELUDE).set_name("=tightwad").call::<()>((tw.clone(), raw, place))?;
    Ok(tw)
}

/// `file:line: ` of a level of the stack; empty where there is none.
fn place(lua: &Lua, level: usize) -> String {
    // The function that asks is a level itself, which the caller's count leaves out.
    let at = lua.inspect_stack(level - 1, |debug| {
        let source = debug.source().short_src.map(|source| source.to_string());
        source.zip(debug.current_line())
    });
    at.flatten().map(|(source, line)| format!("{source}:{line}: ")).unwrap_or_default()
}

fn log(lua: &Lua) -> mlua::Result<Table> {
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

/// A value, or nil and why not.
type Made = (Option<Handle>, Option<String>);

fn made(result: Result<SharedBackend, String>) -> mlua::Result<Made> {
    Ok(match result {
        Ok(backend) => (Some(Handle(backend)), None),
        Err(error) => (None, Some(error)),
    })
}

fn model(lua: &Lua, folder: &Path, factory: &Arc<dyn Factory>, _: &Limits) -> mlua::Result<Function> {
    let (folder, factory) = (folder.to_owned(), factory.clone());
    lua.create_async_function(move |lua, table: Table| {
        let (spec, factory) = (model_spec(&lua, &table, &folder), factory.clone());
        async move {
            match spec {
                Ok(spec) => made(factory.model(spec).await),
                Err(error) => made(Err(error)),
            }
        }
    })
}

fn model_spec(lua: &Lua, table: &Table, folder: &Path) -> Result<ModelSpec, String> {
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

/// Relative paths start at the script, `~` is the user's home.
fn resolve(folder: &Path, path: &str) -> PathBuf {
    match (path.strip_prefix("~/"), std::env::var_os("HOME")) {
        (Some(rest), Some(home)) => PathBuf::from(home).join(rest),
        _ => folder.join(path),
    }
}

fn lookup(lua: &Lua, factory: &Arc<dyn Factory>) -> mlua::Result<Function> {
    let factory = factory.clone();
    lua.create_async_function(move |lua, table: Table| {
        let spec = Fields::new(&lua, &table, "tw.lookup", &["name", "min_match"]).and_then(|fields| {
            let min_match = fields.optional::<u32>("min_match", "a whole number")?;
            if min_match.is_some_and(|n| !(1..=32).contains(&n)) {
                return Err("'min_match' in tw.lookup must be from 1 to 32".to_owned());
            }
            Ok(LookupSpec { name: fields.optional("name", "a string")?, min_match })
        });
        let factory = factory.clone();
        async move {
            match spec {
                Ok(spec) => made(factory.lookup(spec).await),
                Err(error) => made(Err(error)),
            }
        }
    })
}

fn speculation(lua: &Lua, folder: &Path, factory: &Arc<dyn Factory>) -> mlua::Result<Function> {
    let (folder, factory) = (folder.to_owned(), factory.clone());
    lua.create_async_function(move |lua, table: Table| {
        let (spec, factory) = (speculation_spec(&lua, &table, &folder), factory.clone());
        async move {
            match spec {
                Ok(spec) => made(factory.speculation(spec).await),
                Err(error) => made(Err(error)),
            }
        }
    })
}

fn speculation_spec(lua: &Lua, table: &Table, folder: &Path) -> Result<SpeculationSpec, String> {
    let known = ["target", "draft", "max_draft", "plugin", "settings"];
    let fields = Fields::new(lua, table, "tw.speculation", &known)?;
    let Handle(target) = fields.required("target", "a backend that verifies, such as tw.model{}")?;
    let drafters = match fields.required("draft", "a drafter or a list of drafters")? {
        Value::Table(list) => {
            list.sequence_values::<Handle>().map(|handle| handle.map(|Handle(backend)| backend)).collect()
        }
        other => <Handle as mlua::FromLua>::from_lua(other, lua).map(|Handle(backend)| vec![backend]),
    };
    let wrong = |_| "'draft' in tw.speculation must be a drafter or a list of drafters".to_owned();
    let drafters: Vec<SharedBackend> = drafters.map_err(wrong)?;
    check_stack(target.as_ref(), &drafters)?;
    let given: Option<Table> = fields.optional("settings", "a table")?;
    let mut settings = match given.map(|given| lua.from_value(Value::Table(given))) {
        None => serde_json::Map::new(),
        Some(Ok(serde_json::Value::Object(settings))) => settings,
        Some(_) => return Err("'settings' in tw.speculation must be a table with named fields".to_owned()),
    };
    if let Some(max_draft) = fields.optional::<u32>("max_draft", "a whole number")? {
        if !(1..=64).contains(&max_draft) {
            return Err("'max_draft' in tw.speculation must be from 1 to 64".to_owned());
        }
        settings.insert("max_draft".to_owned(), max_draft.into());
    }
    let plugin: Option<String> = fields.optional("plugin", "a string")?;
    let plugin = plugin.map(|name| match name.ends_with(".wasm") {
        true => resolve(folder, &name).display().to_string(),
        false => name,
    });
    Ok(SpeculationSpec { target, drafters, plugin, settings })
}

/// Refuses stacks that cannot work, with the way out.
fn check_stack(target: &dyn Backend, drafters: &[SharedBackend]) -> Result<(), String> {
    if !target.capabilities().has(Capabilities::VERIFY) {
        let name = target.name();
        return Err(format!(
            "'{name}' cannot verify drafts; use a tw.model{{}} or a mode over one as 'target'"
        ));
    }
    if drafters.is_empty() {
        return Err("'draft' in tw.speculation is empty; tw.lookup{} is one that costs nothing".to_owned());
    }
    for drafter in drafters {
        let name = drafter.name();
        if !drafter.capabilities().has(Capabilities::PROPOSE) {
            return Err(format!("'{name}' cannot draft; use a tw.model{{}} or tw.lookup{{}} as 'draft'"));
        }
        if let (Some(own), Some(targets)) = (drafter.vocabulary(), target.vocabulary())
            && own != targets
        {
            let target = target.name();
            return Err(format!(
                "'{name}' has another vocabulary than '{target}', so its tokens mean nothing there; draft with a smaller model of the same family, or with tw.lookup{{}}"
            ));
        }
    }
    Ok(())
}

fn serve(lua: &Lua) -> mlua::Result<Function> {
    lua.create_function(|lua, table: Table| {
        Ok(match served(lua, &table) {
            Ok(served) => (Some(served), None),
            Err(error) => (None, Some(error)),
        })
    })
}

fn served(lua: &Lua, table: &Table) -> Result<Served, String> {
    let fields = Fields::new(lua, table, "tw.serve", &["listen", "token", "models"])?;
    let given: Table = fields.required("models", "a table of models by name")?;
    let mut models = Vec::new();
    for pair in given.pairs::<Value, Value>() {
        let (name, value) = pair.map_err(|error| error.to_string())?;
        let Value::String(name) = &name else {
            return Err("'models' in tw.serve has names as keys, as in { [\"big\"] = backend }".to_owned());
        };
        let name = name.to_string_lossy();
        let usable = match &value {
            Value::Function(_) => true,
            Value::UserData(data) => match data.borrow::<Handle>() {
                Ok(handle) if !handle.0.capabilities().has(Capabilities::GENERATE) => {
                    return Err(format!("the model '{name}' cannot answer requests: it only drafts"));
                }
                handle => handle.is_ok(),
            },
            _ => false,
        };
        if !usable {
            return Err(format!(
                "the model '{name}' must be a backend or a function, not {}",
                describe(&value)
            ));
        }
        models.push((name, value));
    }
    if models.is_empty() {
        return Err("'models' in tw.serve is empty".to_owned());
    }
    models.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(Served {
        listen: fields.optional("listen", "a string")?,
        token: fields.optional("token", "a string")?,
        models,
    })
}
