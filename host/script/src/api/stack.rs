//! Shared readers for the modes that stack drafters on a target.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::sync::Arc;

use mlua::{FromLua, Lua, Table, Value};
use tightwad_core::{Backend, SharedBackend, TranslatingBackend};

use crate::handle::BackendHandle;
use crate::json::to_json;
use crate::keys::Fields;
use crate::table_error::TableError;

/// Reads `target`, `drafters` and `translate`, and checks that the drafters fit the target.
pub(crate) fn target_and_drafters(
    lua: &Lua,
    fields: &Fields<'_>,
    table_name: &str,
) -> Result<(SharedBackend, Vec<SharedBackend>), TableError> {
    let BackendHandle(target) = fields.required("target", "a backend that verifies, such as tw.model{}")?;
    let expected = "a drafter or a list of drafters";
    let drafters = backends(lua, fields.required("drafters", expected)?)
        .ok_or_else(|| format!("'drafters' in {table_name} must be {expected}"))?;
    let translate = fields.flag("translate")?;
    let drafters = check_stack(table_name, target.as_ref(), drafters, translate)?;
    Ok((target, drafters))
}

/// Reads `settings`, the named settings for the driver.
pub(crate) fn driver_settings(
    lua: &Lua,
    fields: &Fields<'_>,
    table_name: &str,
) -> Result<serde_json::Map<String, serde_json::Value>, TableError> {
    let table: Option<Table> = fields.optional("settings", "a table")?;
    match table.map(|table| to_json(lua, &Value::Table(table))) {
        None => Ok(serde_json::Map::new()),
        Some(Ok(serde_json::Value::Object(settings))) => Ok(settings),
        Some(Ok(_)) => {
            Err(TableError::Refused(format!("'settings' in {table_name} must be a table with named fields")))
        }
        Some(Err(error)) => Err(TableError::Refused(format!("'settings' in {table_name}: {error}"))),
    }
}

/// A numeric type of a setting.
pub(crate) trait Number: FromLua + PartialOrd + Display + Into<serde_json::Value> {
    /// The type's description in errors.
    const EXPECTED: &'static str;
}

impl Number for u32 {
    const EXPECTED: &'static str = "a whole number";
}

impl Number for f64 {
    const EXPECTED: &'static str = "a number";
}

/// Adds the number under `key`, if there is one, to the driver's settings. Numbers outside `range` are errors.
pub(crate) fn number_setting<N: Number>(
    fields: &Fields<'_>,
    settings: &mut serde_json::Map<String, serde_json::Value>,
    key: &str,
    range: RangeInclusive<N>,
    table_name: &str,
) -> Result<(), TableError> {
    if let Some(number) = fields.optional::<N>(key, N::EXPECTED)? {
        if !range.contains(&number) {
            let (min, max) = range.into_inner();
            return Err(TableError::Refused(format!("'{key}' in {table_name} must be from {min} to {max}")));
        }
        settings.insert(key.to_owned(), number.into());
    }
    Ok(())
}

/// Reads a backend or a list of backends. `None`: the value has another type.
pub(crate) fn backends(lua: &Lua, value: Value) -> Option<Vec<SharedBackend>> {
    let handles: mlua::Result<Vec<BackendHandle>> = match value {
        Value::Table(list) => list.sequence_values::<BackendHandle>().collect(),
        other => BackendHandle::from_lua(other, lua).map(|handle| vec![handle]),
    };
    Some(handles.ok()?.into_iter().map(SharedBackend::from).collect())
}

/// Refuses stacks that cannot work. With `translate`, drafters with another vocabulary draft as text.
fn check_stack(
    table_name: &str,
    target: &dyn Backend,
    drafters: Vec<SharedBackend>,
    translate: bool,
) -> Result<Vec<SharedBackend>, TableError> {
    if !target.as_target().is_some_and(|target| target.verifies()) {
        let name = target.name();
        if is_recurrent(target) {
            return Err(TableError::Refused(format!("'{name}' cannot verify drafts: {RECURRENT_REASON}")));
        }
        return Err(TableError::Refused(format!(
            "'{name}' cannot verify drafts. Use a tw.model{{}}, a tw.node{{}} or a mode over one as 'target'. A text server can be a target with verify = \"replay\", which is never faster than the server alone"
        )));
    }
    if drafters.is_empty() {
        return Err(TableError::Refused(format!(
            "'drafters' in {table_name} is empty; tw.lookup{{}} needs no model"
        )));
    }
    drafters.into_iter().map(|drafter| check_drafter(target, drafter, translate)).collect()
}

/// The reason why a model with recurrent layers can neither draft nor verify.
const RECURRENT_REASON: &str =
    "it has recurrent layers, whose state cannot be rolled back; serve this model without a mode";

fn is_recurrent(backend: &dyn Backend) -> bool {
    backend.facts().is_some_and(|facts| facts.recurrent)
}

fn check_drafter(
    target: &dyn Backend,
    drafter: SharedBackend,
    translate: bool,
) -> Result<SharedBackend, TableError> {
    let (name, target_name) = (drafter.name().to_owned(), target.name());
    if drafter.as_drafter().is_none() {
        if is_recurrent(drafter.as_ref()) {
            return Err(TableError::Refused(format!("'{name}' cannot draft: {RECURRENT_REASON}")));
        }
        return Err(TableError::Refused(format!(
            "'{name}' cannot draft; use a tw.model{{}} or tw.lookup{{}} in 'drafters'"
        )));
    }
    // Drafters without a vocabulary of their own use the target's.
    if drafter.vocabulary().is_none() || drafter.vocabulary() == target.vocabulary() {
        return Ok(drafter);
    }
    if !translate {
        return Err(TableError::Refused(format!(
            "'{name}' has another vocabulary than '{target_name}'. Draft with a smaller model of the same family, or with tw.lookup{{}}. With translate = true it drafts as text"
        )));
    }
    let translated = TranslatingBackend::new(drafter).map(|drafter| Arc::new(drafter) as SharedBackend);
    translated.ok_or_else(|| TableError::Refused(format!("'{name}' has no text to translate")))
}
