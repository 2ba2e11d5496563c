//! `tw.speculation{}`.

use std::path::Path;

use mlua::{Lua, Table};

use crate::api::plugins::plugin;
use crate::api::stack;
use crate::factory::SpeculationSpec;
use crate::keys::{Fields, Schema};
use crate::table_error::TableError;

const FUNCTION: &str = "tw.speculation";

pub(crate) const SPECULATION: Schema = Schema {
    name: FUNCTION,
    keys: &[
        "target",
        "drafters",
        "max_draft_tokens",
        "overlap",
        "tree",
        "translate",
        "driver",
        "driver_sha256",
        "settings",
    ],
};

/// Reads the options of `tw.speculation{}`.
pub(crate) fn spec(lua: &Lua, table: &Table, folder: &Path) -> Result<SpeculationSpec, TableError> {
    let fields = Fields::new(lua, table, &SPECULATION)?;
    let (target, drafters) = stack::target_and_drafters(lua, &fields, FUNCTION, Some(stack::own_drafters))?;
    let mut settings = stack::driver_settings(lua, &fields, FUNCTION)?;
    stack::number_setting::<u32>(&fields, &mut settings, "max_draft_tokens", 1..=64, FUNCTION)?;
    if let Some(overlap) = fields.optional::<bool>("overlap", "true or false")? {
        settings.insert("overlap".to_owned(), overlap.into());
    }
    if let Some(tree) = fields.optional::<bool>("tree", "true or false")? {
        settings.insert("tree".to_owned(), if tree { "auto" } else { "never" }.into());
    }
    let driver = plugin(&fields, folder, "driver", FUNCTION)?;
    Ok(SpeculationSpec { target, drafters, driver, settings })
}
