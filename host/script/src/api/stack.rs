//! Shared readers for the modes that stack drafters on a target.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;

use mlua::{FromLua, Lua, Table, Value};
use tightwad_core::{Backend, Heads, Lookup, SharedBackend, TranslatingBackend};

use crate::handle::BackendHandle;
use crate::json::to_json;
use crate::keys::{Fields, Schema};
use crate::table_error::TableError;

pub(crate) const HEADS: Schema = Schema { name: "tw.heads", keys: &["target"] };

/// Reads `target`, `drafters` and `translate`, and checks that the drafters fit the target. Without `drafters`,
/// `default_drafters` gives them, if there is such a function.
pub(crate) fn target_and_drafters(
    lua: &Lua,
    fields: &Fields<'_>,
    table_name: &str,
    default_drafters: Option<fn(&SharedBackend) -> Vec<SharedBackend>>,
) -> Result<(SharedBackend, Vec<SharedBackend>), TableError> {
    let BackendHandle(target) = fields.required("target", "a backend that verifies, such as tw.model{}")?;
    let expected = "a drafter or a list of drafters";
    let drafters = match (fields.optional("drafters", expected)?, default_drafters) {
        (None, Some(default_drafters)) => default_drafters(&target),
        (None, None) => return Err(fields.missing("drafters", expected)),
        (Some(drafters), _) => {
            backends(lua, drafters).ok_or_else(|| format!("'drafters' in {table_name} must be {expected}"))?
        }
    };
    let translate = fields.flag("translate")?;
    let drafters = check_stack(table_name, target.as_ref(), drafters, translate)?;
    Ok((target, drafters))
}

/// The drafters that need no other model: the target's own heads, if it has some, and lookup.
pub(crate) fn own_drafters(target: &SharedBackend) -> Vec<SharedBackend> {
    let heads = Heads::new(target.clone()).map(|heads| Arc::new(heads) as SharedBackend);
    heads.into_iter().chain([Arc::new(Lookup::default()) as SharedBackend]).collect()
}

/// Reads the options of `tw.heads{}`.
pub(crate) fn heads(lua: &Lua, table: &Table, _: &Path) -> Result<SharedBackend, TableError> {
    let fields = Fields::new(lua, table, &HEADS)?;
    let BackendHandle(target) =
        fields.required("target", "a backend with draft heads, such as tw.model{}")?;
    let name = target.name().to_owned();
    let heads = Heads::new(target).ok_or_else(|| {
        format!("'{name}' has no draft heads: its file has no MTP layers. Use tw.lookup{{}}, or a smaller model of the same family")
    })?;
    Ok(Arc::new(heads))
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
    if target.as_target().is_none() {
        let name = target.name();
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

fn check_drafter(
    target: &dyn Backend,
    drafter: SharedBackend,
    translate: bool,
) -> Result<SharedBackend, TableError> {
    let (name, target_name) = (drafter.name().to_owned(), target.name());
    if drafter.only_target().is_some_and(|only| !std::ptr::addr_eq(Arc::as_ptr(only), target)) {
        return Err(TableError::Refused(format!(
            "'{name}' drafts only for its own model, and not for '{target_name}'"
        )));
    }
    if drafter.as_drafter().is_none() {
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
