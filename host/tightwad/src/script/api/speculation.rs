//! `tw.speculation{}`.

use std::path::Path;
use std::sync::Arc;

use mlua::{FromLua, Lua, LuaSerdeExt, Table, Value};

use super::resolve;
use crate::backend::{Backend, Capabilities, SharedBackend, Translated};
use crate::script::factory::SpeculationSpec;
use crate::script::handle::Handle;
use crate::script::keys::Fields;

/// `tw.speculation{}`.
pub(super) fn spec(lua: &Lua, table: &Table, folder: &Path) -> Result<SpeculationSpec, String> {
    let known = ["target", "draft", "max_draft", "overlap", "translate", "plugin", "settings"];
    let fields = Fields::new(lua, table, "tw.speculation", &known)?;
    let Handle(target) = fields.required("target", "a backend that verifies, such as tw.model{}")?;
    let wrong = || "'draft' in tw.speculation must be a drafter or a list of drafters".to_owned();
    let drafters = backends(lua, fields.required("draft", "a drafter or a list of drafters")?);
    let translate = fields.optional::<bool>("translate", "true or false")?.unwrap_or(false);
    let drafters = check_stack(target.as_ref(), drafters.ok_or_else(wrong)?, translate)?;
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
    if let Some(overlap) = fields.optional::<bool>("overlap", "true or false")? {
        settings.insert("overlap".to_owned(), overlap.into());
    }
    let plugin: Option<String> = fields.optional("plugin", "a string")?;
    let plugin = plugin.map(|name| match name.ends_with(".wasm") {
        true => resolve(folder, &name).display().to_string(),
        false => name,
    });
    Ok(SpeculationSpec { target, drafters, plugin, settings })
}

/// A backend, or a list of backends; `None` for anything else.
pub(super) fn backends(lua: &Lua, value: Value) -> Option<Vec<SharedBackend>> {
    let handles: mlua::Result<Vec<Handle>> = match value {
        Value::Table(list) => list.sequence_values::<Handle>().collect(),
        other => Handle::from_lua(other, lua).map(|handle| vec![handle]),
    };
    Some(handles.ok()?.into_iter().map(SharedBackend::from).collect())
}

/// Refuses stacks that cannot work, with the way out; drafters with another vocabulary are translated
/// where the script wants that.
fn check_stack(
    target: &dyn Backend,
    drafters: Vec<SharedBackend>,
    translate: bool,
) -> Result<Vec<SharedBackend>, String> {
    if !target.capabilities().has(Capabilities::VERIFY) {
        let name = target.name();
        return Err(format!(
            "'{name}' cannot verify drafts; use a tw.model{{}}, a tw.node{{}} or a mode over one as 'target'; a text server can be one with verify = \"replay\", which is no faster than the server"
        ));
    }
    if drafters.is_empty() {
        return Err("'draft' in tw.speculation is empty; tw.lookup{} is one that costs nothing".to_owned());
    }
    drafters.into_iter().map(|drafter| check_drafter(target, drafter, translate)).collect()
}

fn check_drafter(
    target: &dyn Backend,
    drafter: SharedBackend,
    translate: bool,
) -> Result<SharedBackend, String> {
    let (name, targets) = (drafter.name().to_owned(), target.name());
    if !drafter.capabilities().has(Capabilities::PROPOSE) {
        return Err(format!("'{name}' cannot draft; use a tw.model{{}} or tw.lookup{{}} as 'draft'"));
    }
    // Drafters without a vocabulary of their own take the target's.
    if drafter.vocabulary().is_none() || drafter.vocabulary() == target.vocabulary() {
        return Ok(drafter);
    }
    if !translate {
        return Err(format!(
            "'{name}' has another vocabulary than '{targets}', so its tokens mean nothing there; draft with a smaller model of the same family, with tw.lookup{{}}, or by text with translate = true"
        ));
    }
    let translated = Translated::new(drafter).map(|drafter| Arc::new(drafter) as SharedBackend);
    translated.ok_or_else(|| format!("'{name}' has no text to translate"))
}
