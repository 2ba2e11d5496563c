//! `tw.model{}` and `tw.lookup{}`.

use std::path::Path;

use mlua::{Lua, Table};
use tightwad_core::user_data;
use tightwad_swarm::WantedError;
use tightwad_swarm::net::Peer;

use crate::api::paths::resolve;
use crate::factory::{LookupSpec, ModelSpec, SwarmSource};
use crate::keys::Fields;
use crate::table_error::TableError;

/// `tw.model{}`.
pub(crate) fn model(lua: &Lua, table: &Table, folder: &Path) -> Result<ModelSpec, TableError> {
    let known =
        ["path", "name", "context", "slots", "queue", "threads", "gpu_layers", "swarm", "peers", "token"];
    let fields = Fields::new(lua, table, "tw.model", &known)?;
    let number = |key| fields.optional::<u32>(key, "a whole number");
    let swarm = swarm(&fields)?;
    let path = match (fields.optional::<String>("path", "a string, the GGUF file")?, &swarm) {
        (Some(path), _) => resolve(folder, &path),
        (None, Some(_)) => user_data()
            .ok_or_else(|| "there is no HOME for models: say where to with 'path'".to_owned())?
            .join("models"),
        (None, None) => {
            return Err(TableError::Refused(
                "tw.model needs 'path': a string, the GGUF file; or 'swarm'".to_owned(),
            ));
        }
    };
    Ok(ModelSpec {
        path,
        swarm,
        name: fields.optional("name", "a string")?,
        context: fields.context()?,
        slots: number("slots")?,
        queue: number("queue")?,
        threads: number("threads")?,
        gpu_layers: number("gpu_layers")?,
    })
}

/// What other machines have: `swarm`, `peers` and `token`.
fn swarm(fields: &Fields<'_>) -> Result<Option<SwarmSource>, TableError> {
    let wanted: Option<String> = fields.optional("swarm", "a string, as in \"NAME@DIGEST\"")?;
    let peers: Option<Vec<String>> = fields.optional("peers", "a list of addresses")?;
    let token = fields.token()?;
    let Some(wanted) = wanted else {
        return match (peers, token) {
            (None, None) => Ok(None),
            _ => Err(TableError::Refused("'peers' and 'token' in tw.model go with 'swarm'".to_owned())),
        };
    };
    let wanted = wanted.parse().map_err(|error: WantedError| format!("'swarm' in tw.model: {error}"))?;
    let peers = peers.unwrap_or_default();
    for peer in &peers {
        Peer::seeder(peer).map_err(|error| format!("'peers' in tw.model: {error}"))?;
    }
    Ok(Some(SwarmSource { wanted, peers, token }))
}

/// `tw.lookup{}`.
pub(crate) fn lookup(lua: &Lua, table: &Table, _: &Path) -> Result<LookupSpec, TableError> {
    let fields = Fields::new(lua, table, "tw.lookup", &["name", "min_match"])?;
    let min_match = fields.optional::<u32>("min_match", "a whole number")?;
    if min_match.is_some_and(|n| !(1..=32).contains(&n)) {
        return Err(TableError::Refused("'min_match' in tw.lookup must be from 1 to 32".to_owned()));
    }
    Ok(LookupSpec { name: fields.optional("name", "a string")?, min_match })
}
