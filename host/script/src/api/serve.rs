//! `tw.serve{}`.

use std::path::Path;

use mlua::{Lua, Table, Value};
use tightwad_core::Token;

use crate::handle::BackendHandle;
use crate::keys::{Fields, Schema, describe};
use crate::table_error::TableError;

pub(crate) const SERVE: Schema = Schema { name: "tw.serve", keys: &["models", "listen", "token"] };

/// The options of `tw.serve{}`. A script returns this value to the host.
#[derive(Clone)]
pub(crate) struct ServeSpec {
    pub listen: Option<String>,
    pub token: Option<Token>,
    /// Backends and functions by the names that clients use, sorted.
    pub models: Vec<(String, Value)>,
}

impl mlua::UserData for ServeSpec {}

/// Reads the options of `tw.serve{}`.
pub(crate) fn serve(lua: &Lua, table: &Table, _: &Path) -> Result<ServeSpec, TableError> {
    let fields = Fields::new(lua, table, &SERVE)?;
    let table: Table = fields.required("models", "a table of models by name")?;
    let mut models = Vec::new();
    for pair in table.pairs::<Value, Value>() {
        let (name, value) = pair?;
        let Value::String(name) = &name else {
            return Err(TableError::Refused(
                "'models' in tw.serve has names as keys, as in { [\"big\"] = backend }".to_owned(),
            ));
        };
        let name = name.to_string_lossy();
        let is_usable = match &value {
            Value::Function(_) => true,
            Value::UserData(data) => match data.borrow::<BackendHandle>() {
                Ok(handle) if handle.0.as_generator().is_none() => {
                    return Err(TableError::Refused(format!(
                        "the model '{name}' cannot answer requests: it only drafts"
                    )));
                }
                handle => handle.is_ok(),
            },
            _ => false,
        };
        if !is_usable {
            return Err(TableError::Refused(format!(
                "the model '{name}' must be a backend or a function, not {}",
                describe(&value)
            )));
        }
        models.push((name, value));
    }
    if models.is_empty() {
        return Err(TableError::Refused("'models' in tw.serve is empty".to_owned()));
    }
    models.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(ServeSpec { listen: fields.optional("listen", "a string")?, token: fields.token("token")?, models })
}
