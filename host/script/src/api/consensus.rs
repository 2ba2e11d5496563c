//! `tw.consensus{}`.

use std::path::Path;

use mlua::{Lua, Table};
use tightwad_core::OnFailure;

use crate::api::stack;
use crate::factory::ConsensusSpec;
use crate::keys::Fields;
use crate::table_error::TableError;

const OF: &str = "tw.consensus";
const KNOWN: [&str; 15] = [
    "target",
    "drafters",
    "draft",
    "rule",
    "block",
    "audit",
    "floor",
    "quorum",
    "threshold",
    "translate",
    "plugin",
    "sha256",
    "on_failure",
    "mode",
    "settings",
];
const RULES: [&str; 4] = ["strict", "majority", "any_disagree", "hedge"];

/// `tw.consensus{}`.
pub(crate) fn spec(lua: &Lua, table: &Table, folder: &Path) -> Result<ConsensusSpec, TableError> {
    let fields = Fields::new(lua, table, OF, &KNOWN)?;
    let (target, drafters) = stack::stack(lua, &fields, OF)?;
    if !target.as_target().is_some_and(|target| target.resumes()) {
        let name = target.name();
        return Err(TableError::Refused(format!(
            "'{name}' cannot go on behind tokens that it did not choose; use a tw.model{{}}, a tw.node{{}} or a mode over one as 'target'"
        )));
    }
    let mut settings = stack::settings(lua, &fields, OF)?;
    let plugin = stack::plugin(&fields, folder, "plugin", OF)?;
    if let Some(rule) = fields.optional::<String>("rule", "a string")? {
        if !RULES.contains(&rule.as_str()) {
            return Err(TableError::Refused(format!(
                "'rule' in {OF} can be {}, not '{rule}'",
                RULES.join(", ")
            )));
        }
        settings.insert("rule".to_owned(), rule.into());
    }
    stack::ranged::<u32>(&fields, &mut settings, "block", 1..=64, OF)?;
    let drafted = u32::try_from(drafters.len()).unwrap_or(u32::MAX);
    stack::ranged::<u32>(&fields, &mut settings, "quorum", 1..=drafted, OF)?;
    for key in ["audit", "floor", "threshold"] {
        stack::ranged::<f64>(&fields, &mut settings, key, 0.0..=1.0, OF)?;
    }
    let mode: Option<String> = fields.optional("mode", "a string")?;
    let (mode, on_failure) =
        (mode.map(|name| stack::named(folder, name)), on_failure(&fields, plugin.is_some())?);
    Ok(ConsensusSpec { target, drafters, plugin, on_failure, mode, settings })
}

fn on_failure(fields: &Fields<'_>, used: bool) -> Result<OnFailure, TableError> {
    match fields.optional::<String>("on_failure", "a string")?.as_deref() {
        Some(_) if !used => Err(TableError::Refused(format!("'on_failure' in {OF} goes with 'plugin'"))),
        None | Some("verify") => Ok(OnFailure::Verify),
        Some("decode") => Ok(OnFailure::Decode),
        Some("error") => Ok(OnFailure::Error),
        Some(other) => Err(TableError::Refused(format!(
            "'on_failure' in {OF} can be \"verify\", \"decode\" or \"error\", not '{other}'"
        ))),
    }
}
