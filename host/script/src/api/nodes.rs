//! `tw.node{}` and `tw.discover{}`.

use std::path::Path;
use std::time::Duration;

use mlua::{IntoLua, Lua, Table, Value};
use tightwad_net::Found;
use tightwad_node::NodeSpec;

use crate::api::stack::backends;
use crate::factory::LentSpec;
use crate::keys::Fields;
use crate::table_error::TableError;

/// How long a request waits for a lost node: longer where nobody stands by.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(2));
/// How long nodes may take to make themselves known.
const DISCOVERY: Duration = Duration::from_secs(1);

/// `tw.node{}`.
pub(crate) fn node(lua: &Lua, table: &Table, _: &Path) -> Result<LentSpec, TableError> {
    let known = ["url", "model", "token", "name", "fallback", "patience"];
    let fields = Fields::new(lua, table, "tw.node", &known)?;
    let fallback = match fields.optional::<Value>("fallback", "a backend or a list of backends")? {
        None => Vec::new(),
        Some(value) => {
            let wrong = || "'fallback' in tw.node must be a backend or a list of backends".to_owned();
            backends(lua, value).ok_or_else(wrong)?
        }
    };
    let patience = match fields.optional::<f64>("patience", "a number of seconds")? {
        Some(seconds) if (0.0..=3600.0).contains(&seconds) => Duration::from_secs_f64(seconds),
        Some(_) => {
            return Err(TableError::Refused(
                "'patience' in tw.node must be from 0 to 3600 seconds".to_owned(),
            ));
        }
        None => {
            if fallback.is_empty() {
                PATIENCE.0
            } else {
                PATIENCE.1
            }
        }
    };
    let spec = NodeSpec {
        url: url(&fields, "http://192.168.1.20:7710")?,
        model: fields.optional("model", "a string")?,
        token: fields.token()?,
        name: fields.optional("name", "a string")?,
        patience,
        watched: None,
    };
    Ok(LentSpec { spec, fallback })
}

/// The field `url`.
pub(crate) fn url(fields: &Fields<'_>, example: &str) -> Result<String, TableError> {
    let url: String = fields.required("url", &format!("a string, as in \"{example}\""))?;
    if url.starts_with("http://") || url.starts_with("https://") {
        return Ok(url);
    }
    Err(TableError::Refused(format!("'url' must begin with http://, as in \"{example}\", not '{url}'")))
}

/// `tw.discover{}`: seconds to listen.
pub(crate) fn discovery(lua: &Lua, table: &Table, _: &Path) -> Result<Duration, TableError> {
    let fields = Fields::new(lua, table, "tw.discover", &["seconds"])?;
    match fields.optional::<f64>("seconds", "a number")? {
        None => Ok(DISCOVERY),
        Some(seconds) if (0.1..=60.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        Some(_) => Err(TableError::Refused("'seconds' in tw.discover must be from 0.1 to 60".to_owned())),
    }
}

/// A node that made itself known, as scripts see it.
pub(crate) struct FoundNode(pub Found);

impl IntoLua for FoundNode {
    fn into_lua(self, lua: &Lua) -> mlua::Result<Value> {
        let table = lua.create_table()?;
        table.raw_set("name", self.0.name)?;
        table.raw_set("url", self.0.url)?;
        table.raw_set("version", self.0.version)?;
        table.raw_set("models", self.0.models)?;
        table.into_lua(lua)
    }
}
