//! `tw.model{}` and `tw.lookup{}`.

use std::path::Path;
use std::sync::Arc;

use mlua::{Lua, Table};
use tightwad_core::user_data_dir;
use tightwad_swarm::ModelRefError;
use tightwad_swarm::net::Peer;

use crate::api::paths::resolve;
use crate::factory::{LookupSpec, ModelSpec, SwarmSource};
use crate::keys::{Fields, Schema};
use crate::table_error::TableError;

pub(crate) const MODEL: Schema = Schema {
    name: "tw.model",
    keys: &[
        "path",
        "name",
        "context",
        "slots",
        "max_queue",
        "threads",
        "gpu_layers",
        "template",
        "swarm",
        "peers",
        "token",
        "insecure",
    ],
};

pub(crate) const LOOKUP: Schema =
    Schema { name: "tw.lookup", keys: &["name", "min_match_tokens", "memory_tokens", "shared_memory"] };

/// Reads the options of `tw.model{}`.
pub(crate) fn model(lua: &Lua, table: &Table, folder: &Path) -> Result<ModelSpec, TableError> {
    let fields = Fields::new(lua, table, &MODEL)?;
    let number = |key| fields.optional::<u32>(key, "a whole number");
    let swarm = swarm(&fields)?;
    let path = match (fields.optional::<String>("path", "a string, the GGUF file")?, &swarm) {
        (Some(path), _) => resolve(folder, &path),
        (None, Some(_)) => user_data_dir()
            .ok_or_else(|| {
                "HOME is not set, so there is no folder for models; give one with 'path'".to_owned()
            })?
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
        name: fields.name()?,
        context: fields.context()?,
        slots: number("slots")?,
        max_queue: number("max_queue")?,
        threads: number("threads")?,
        gpu_layers: number("gpu_layers")?,
        template: template(&fields, folder)?,
    })
}

/// Reads the file `template`.
fn template(fields: &Fields<'_>, folder: &Path) -> Result<Option<Arc<str>>, TableError> {
    let Some(file) = fields.optional::<String>("template", "a string, the file of a chat template")? else {
        return Ok(None);
    };
    let path = resolve(folder, &file);
    let text = std::fs::read_to_string(&path);
    let text = text.map_err(|error| format!("'template' in tw.model: {}: {error}", path.display()))?;
    Ok(Some(text.into()))
}

/// Reads `swarm`, `peers`, `token` and `insecure`.
fn swarm(fields: &Fields<'_>) -> Result<Option<SwarmSource>, TableError> {
    let model: Option<String> = fields.optional("swarm", "a string, as in \"NAME@DIGEST\"")?;
    let peers: Option<Vec<String>> = fields.optional("peers", "a list of addresses")?;
    let token = fields.token("token")?;
    let Some(model) = model else {
        return match (peers, token) {
            (None, None) => Ok(None),
            _ => Err(TableError::Refused("'peers' and 'token' in tw.model need 'swarm'".to_owned())),
        };
    };
    let model = model.parse().map_err(|error: ModelRefError| format!("'swarm' in tw.model: {error}"))?;
    let peers = peers.unwrap_or_default();
    let insecure = fields.flag("insecure")?;
    for peer in &peers {
        let peer = Peer::seeder(peer).map_err(|error| format!("'peers' in tw.model: {error}"))?;
        if peer.is_exposed() && !insecure {
            return Err(TableError::Refused(format!(
                "'peers' in tw.model: {peer} would not be encrypted: use the address that the seeder prints, which begins with tightwad://, or set insecure = true"
            )));
        }
    }
    Ok(Some(SwarmSource { model, peers, token }))
}

/// Reads the options of `tw.lookup{}`.
pub(crate) fn lookup(lua: &Lua, table: &Table, _: &Path) -> Result<LookupSpec, TableError> {
    let fields = Fields::new(lua, table, &LOOKUP)?;
    let min_match_tokens = fields.optional::<u32>("min_match_tokens", "a whole number")?;
    if min_match_tokens.is_some_and(|tokens| !(1..=32).contains(&tokens)) {
        return Err(TableError::Refused("'min_match_tokens' in tw.lookup must be from 1 to 32".to_owned()));
    }
    Ok(LookupSpec {
        name: fields.name()?,
        min_match_tokens,
        memory_tokens: fields.optional("memory_tokens", "a whole number")?,
        shared_memory: fields.flag("shared_memory")?,
    })
}
