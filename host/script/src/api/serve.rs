//! `tw.serve{}`.

use std::path::Path;

use mlua::{Lua, Table, Value};
use tightwad_core::Token;

use crate::handle::Handle;
use crate::keys::{Fields, describe};
use crate::table_error::TableError;

/// What `tw.serve` was given.
#[derive(Clone)]
pub(crate) struct Served {
    pub listen: Option<String>,
    pub token: Option<Token>,
    pub models: Vec<(String, Value)>,
}

impl mlua::UserData for Served {}

/// `tw.serve{}`.
pub(crate) fn served(lua: &Lua, table: &Table, _: &Path) -> Result<Served, TableError> {
    let fields = Fields::new(lua, table, "tw.serve", &["listen", "token", "models"])?;
    let given: Table = fields.required("models", "a table of models by name")?;
    let mut models = Vec::new();
    for pair in given.pairs::<Value, Value>() {
        let (name, value) = pair?;
        let Value::String(name) = &name else {
            return Err(TableError::Refused(
                "'models' in tw.serve has names as keys, as in { [\"big\"] = backend }".to_owned(),
            ));
        };
        let name = name.to_string_lossy();
        let usable = match &value {
            Value::Function(_) => true,
            Value::UserData(data) => match data.borrow::<Handle>() {
                Ok(handle) if handle.0.as_generator().is_none() => {
                    return Err(TableError::Refused(format!(
                        "the model '{name}' cannot answer requests: it only drafts"
                    )));
                }
                handle => handle.is_ok(),
            },
            _ => false,
        };
        if !usable {
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
    Ok(Served { listen: fields.optional("listen", "a string")?, token: fields.token()?, models })
}
