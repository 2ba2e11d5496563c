//! What the functions that stack drafters on a target have in common.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;

use mlua::{FromLua, Lua, LuaSerdeExt, Table, Value};
use tightwad_core::{Backend, SharedBackend, Translated};

use crate::api::paths::resolve;
use crate::factory::PluginSpec;
use crate::handle::Handle;
use crate::keys::Fields;
use crate::table_error::TableError;

/// The target and the drafters of a table with the fields `target`, `draft` or `drafters`, and `translate`.
pub(crate) fn stack(
    lua: &Lua,
    fields: &Fields<'_>,
    of: &str,
) -> Result<(SharedBackend, Vec<SharedBackend>), TableError> {
    let Handle(target) = fields.required("target", "a backend that verifies, such as tw.model{}")?;
    let wrong = || format!("'draft' in {of} must be a drafter or a list of drafters");
    let list = "a drafter or a list of drafters";
    let (one, many) = (fields.optional("draft", list)?, fields.optional("drafters", list)?);
    let given = match (one, many) {
        (Some(_), Some(_)) => {
            return Err(TableError::Refused(format!(
                "'draft' and 'drafters' in {of} are the same; give one"
            )));
        }
        (None, None) => return Err(TableError::Refused(format!("{of} needs 'drafters': {list}"))),
        (Some(given), None) | (None, Some(given)) => given,
    };
    let drafters = backends(lua, given).ok_or_else(wrong)?;
    let translate = fields.optional::<bool>("translate", "true or false")?.unwrap_or(false);
    let drafters = check_stack(of, target.as_ref(), drafters, translate)?;
    Ok((target, drafters))
}

/// What the plugin reads: the field `settings`.
pub(crate) fn settings(
    lua: &Lua,
    fields: &Fields<'_>,
    of: &str,
) -> Result<serde_json::Map<String, serde_json::Value>, TableError> {
    let given: Option<Table> = fields.optional("settings", "a table")?;
    match given.map(|given| lua.from_value(Value::Table(given))) {
        None => Ok(serde_json::Map::new()),
        Some(Ok(serde_json::Value::Object(settings))) => Ok(settings),
        Some(_) => Err(TableError::Refused(format!("'settings' in {of} must be a table with named fields"))),
    }
}

/// A number of a setting, and what scripts call its kind.
pub(crate) trait Number: FromLua + PartialOrd + Display + Into<serde_json::Value> {
    /// What a field must be.
    const KIND: &'static str;
}

impl Number for u32 {
    const KIND: &'static str = "a whole number";
}

impl Number for f64 {
    const KIND: &'static str = "a number";
}

/// Takes the field `key`, where there is one, into the settings; it must lie in `range`.
pub(crate) fn ranged<N: Number>(
    fields: &Fields<'_>,
    settings: &mut serde_json::Map<String, serde_json::Value>,
    key: &str,
    range: RangeInclusive<N>,
    of: &str,
) -> Result<(), TableError> {
    if let Some(number) = fields.optional::<N>(key, N::KIND)? {
        if !range.contains(&number) {
            let (least, most) = range.into_inner();
            return Err(TableError::Refused(format!("'{key}' in {of} must be from {least} to {most}")));
        }
        settings.insert(key.to_owned(), number.into());
    }
    Ok(())
}

/// The plugin that the field `key` names, with the digest of the field `sha256`.
pub(crate) fn plugin(
    fields: &Fields<'_>,
    folder: &Path,
    key: &str,
    of: &str,
) -> Result<Option<PluginSpec>, TableError> {
    let name: Option<String> = fields.optional(key, "a string")?;
    let sha256: Option<String> = fields.optional("sha256", "a string")?;
    if let Some(wrong) = sha256.as_ref().filter(|text| tightwad_core::digest(text).is_none()) {
        return Err(TableError::Refused(format!(
            "'sha256' in {of} must be 64 hexadecimal digits, not '{wrong}'"
        )));
    }
    let Some(name) = name else {
        let alone = sha256.map(|_| format!("'sha256' in {of} goes with '{key}'"));
        return alone.map_or(Ok(None), |message| Err(TableError::Refused(message)));
    };
    Ok(Some(PluginSpec { name: named(folder, name), sha256 }))
}

/// A plugin's name; a path starts at the script.
pub(crate) fn named(folder: &Path, name: String) -> String {
    match name.ends_with(".wasm") {
        true => resolve(folder, &name).display().to_string(),
        false => name,
    }
}

/// A backend, or a list of backends; `None` for anything else.
pub(crate) fn backends(lua: &Lua, value: Value) -> Option<Vec<SharedBackend>> {
    let handles: mlua::Result<Vec<Handle>> = match value {
        Value::Table(list) => list.sequence_values::<Handle>().collect(),
        other => Handle::from_lua(other, lua).map(|handle| vec![handle]),
    };
    Some(handles.ok()?.into_iter().map(SharedBackend::from).collect())
}

/// Refuses stacks that cannot work, with the way out; drafters with another vocabulary are translated
/// where the script wants that.
fn check_stack(
    of: &str,
    target: &dyn Backend,
    drafters: Vec<SharedBackend>,
    translate: bool,
) -> Result<Vec<SharedBackend>, TableError> {
    if !target.as_target().is_some_and(|target| target.verifies()) {
        let name = target.name();
        if is_recurrent(target) {
            return Err(TableError::Refused(format!("'{name}' cannot verify drafts: {RECURRENT}")));
        }
        return Err(TableError::Refused(format!(
            "'{name}' cannot verify drafts; use a tw.model{{}}, a tw.node{{}} or a mode over one as 'target'; a text server can be one with verify = \"replay\", which is no faster than the server"
        )));
    }
    if drafters.is_empty() {
        return Err(TableError::Refused(format!(
            "'draft' in {of} is empty; tw.lookup{{}} is one that costs nothing"
        )));
    }
    drafters.into_iter().map(|drafter| check_drafter(target, drafter, translate)).collect()
}

/// Why a model with recurrent layers takes no part in speculation.
const RECURRENT: &str =
    "it has recurrent layers, whose state cannot be rolled back; serve this model by itself";

fn is_recurrent(backend: &dyn Backend) -> bool {
    backend.facts().is_some_and(|facts| facts.recurrent)
}

fn check_drafter(
    target: &dyn Backend,
    drafter: SharedBackend,
    translate: bool,
) -> Result<SharedBackend, TableError> {
    let (name, targets) = (drafter.name().to_owned(), target.name());
    if drafter.as_drafter().is_none() {
        if is_recurrent(drafter.as_ref()) {
            return Err(TableError::Refused(format!("'{name}' cannot draft: {RECURRENT}")));
        }
        return Err(TableError::Refused(format!(
            "'{name}' cannot draft; use a tw.model{{}} or tw.lookup{{}} as 'draft'"
        )));
    }
    // Drafters without a vocabulary of their own take the target's.
    if drafter.vocabulary().is_none() || drafter.vocabulary() == target.vocabulary() {
        return Ok(drafter);
    }
    if !translate {
        return Err(TableError::Refused(format!(
            "'{name}' has another vocabulary than '{targets}', so its tokens mean nothing there; draft with a smaller model of the same family, with tw.lookup{{}}, or by text with translate = true"
        )));
    }
    let translated = Translated::new(drafter).map(|drafter| Arc::new(drafter) as SharedBackend);
    translated.ok_or_else(|| TableError::Refused(format!("'{name}' has no text to translate")))
}
