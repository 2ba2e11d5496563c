//! `tw.speculation{}`.

use std::path::Path;

use mlua::{Lua, Table};

use crate::api::stack;
use crate::factory::SpeculationSpec;
use crate::keys::Fields;
use crate::table_error::TableError;

const OF: &str = "tw.speculation";

/// `tw.speculation{}`.
pub(crate) fn spec(lua: &Lua, table: &Table, folder: &Path) -> Result<SpeculationSpec, TableError> {
    let known = [
        "target",
        "draft",
        "drafters",
        "max_draft",
        "overlap",
        "tree",
        "translate",
        "plugin",
        "sha256",
        "settings",
    ];
    let fields = Fields::new(lua, table, OF, &known)?;
    let (target, drafters) = stack::stack(lua, &fields, OF)?;
    let mut settings = stack::settings(lua, &fields, OF)?;
    stack::ranged::<u32>(&fields, &mut settings, "max_draft", 1..=64, OF)?;
    if let Some(overlap) = fields.optional::<bool>("overlap", "true or false")? {
        settings.insert("overlap".to_owned(), overlap.into());
    }
    if let Some(tree) = fields.optional::<bool>("tree", "true or false")? {
        settings.insert("tree".to_owned(), if tree { "auto" } else { "never" }.into());
    }
    let plugin = stack::plugin(&fields, folder, "plugin", OF)?;
    Ok(SpeculationSpec { target, drafters, plugin, settings })
}
