//! `tw.node{}` and `tw.discover{}`.

use std::path::Path;
use std::time::Duration;

use mlua::{IntoLua, Lua, Table, Value};
use tightwad_net::{DiscoveredNode, ServerUrl};
use tightwad_node::NodeSpec;

use crate::api::stack::backends;
use crate::factory::NodeBackendSpec;
use crate::keys::{Fields, Schema};
use crate::table_error::TableError;

/// The default time that a request waits for a lost node without a standby.
const DEFAULT_WAIT_TIMEOUT: Duration = Duration::from_secs(30);
/// The default time that a request waits for a lost node if a standby can take over.
const DEFAULT_WAIT_TIMEOUT_WITH_FALLBACK: Duration = Duration::from_secs(2);
/// An address in error messages.
const NODE_EXAMPLE: &str = "tightwad://192.168.1.20:7710";
/// The default time to wait for the announcements of nodes.
const DEFAULT_DISCOVERY_TIME: Duration = Duration::from_secs(1);

pub(crate) const NODE: Schema = Schema {
    name: "tw.node",
    keys: &["url", "model", "token", "insecure", "name", "fallback", "wait_timeout"],
};

pub(crate) const DISCOVER: Schema = Schema { name: "tw.discover", keys: &["seconds"] };

/// Reads the options of `tw.node{}`.
pub(crate) fn node(lua: &Lua, table: &Table, _: &Path) -> Result<NodeBackendSpec, TableError> {
    let fields = Fields::new(lua, table, &NODE)?;
    let expected = "a backend or a list of backends";
    let fallback = match fields.optional::<Value>("fallback", expected)? {
        None => Vec::new(),
        Some(value) => {
            backends(lua, value).ok_or_else(|| format!("'fallback' in tw.node must be {expected}"))?
        }
    };
    let wait_timeout = match fields.optional::<f64>("wait_timeout", "a number of seconds")? {
        Some(seconds) if (0.0..=3600.0).contains(&seconds) => Duration::from_secs_f64(seconds),
        Some(_) => {
            return Err(TableError::Refused(
                "'wait_timeout' in tw.node must be from 0 to 3600 seconds".to_owned(),
            ));
        }
        None if fallback.is_empty() => DEFAULT_WAIT_TIMEOUT,
        None => DEFAULT_WAIT_TIMEOUT_WITH_FALLBACK,
    };
    let node = NodeSpec {
        url: machine_url(&url(&fields, NODE_EXAMPLE)?, NODE_EXAMPLE, fields.flag("insecure")?)?,
        model: fields.optional("model", "a string")?,
        token: fields.token("token")?,
        name: fields.name()?,
        wait_timeout,
        supervised_device: None,
    };
    Ok(NodeBackendSpec { node, fallback })
}

/// Reads `url`, in its normal form.
pub(crate) fn url(fields: &Fields<'_>, example: &str) -> Result<String, TableError> {
    let url: String = fields.required("url", &format!("a string, as in \"{example}\""))?;
    normal_url(&url, example)
}

/// The normal form of the address of a server.
pub(crate) fn normal_url(url: &str, example: &str) -> Result<String, TableError> {
    let url = url.parse::<ServerUrl>();
    let url = url.map_err(|error| TableError::Refused(format!("'url' {error}, as in \"{example}\"")))?;
    Ok(url.address())
}

/// The normal form of the address of a machine. Connections over a network are encrypted unless `insecure` is set.
pub(crate) fn machine_url(url: &str, example: &str, insecure: bool) -> Result<String, TableError> {
    let url = normal_url(url, example)?;
    if !insecure && url.parse::<ServerUrl>().is_ok_and(|url| url.is_exposed()) {
        return Err(TableError::Refused(format!(
            "'{url}' would not be encrypted: use the address that the machine prints, which begins with tightwad://, or set insecure = true"
        )));
    }
    Ok(url)
}

/// Reads the options of `tw.discover{}`: the time to wait for announcements.
pub(crate) fn discovery_time(lua: &Lua, table: &Table, _: &Path) -> Result<Duration, TableError> {
    let fields = Fields::new(lua, table, &DISCOVER)?;
    match fields.optional::<f64>("seconds", "a number")? {
        None => Ok(DEFAULT_DISCOVERY_TIME),
        Some(seconds) if (0.1..=60.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        Some(_) => Err(TableError::Refused("'seconds' in tw.discover must be from 0.1 to 60".to_owned())),
    }
}

/// A node that discovery found, as a Lua table.
pub(crate) struct NodeTable(pub DiscoveredNode);

impl IntoLua for NodeTable {
    fn into_lua(self, lua: &Lua) -> mlua::Result<Value> {
        let table = lua.create_table()?;
        table.raw_set("name", self.0.name)?;
        table.raw_set("url", self.0.url)?;
        table.raw_set("version", self.0.version)?;
        table.raw_set("models", self.0.models)?;
        table.into_lua(lua)
    }
}
