//! `tw.pooling{}`.

use std::path::Path;
use std::time::Duration;

use mlua::{Lua, Table, Value};
use tightwad_core::{PoolSpec, Token, WorkerSpec};

use crate::api::paths::resolve;
use crate::keys::{Fields, describe};
use crate::table_error::TableError;

/// Sequences at once: each takes memory on every worker.
const SLOTS: u32 = 4;
/// How long a request waits for a pool that loads or recovers.
const PATIENCE: Duration = Duration::from_secs(300);
/// Longest time that a script may name.
const LONGEST: f64 = 7.0 * 86_400.0;

/// `tw.pooling{}`.
pub(crate) fn pooling(lua: &Lua, table: &Table, folder: &Path) -> Result<PoolSpec, TableError> {
    let known = [
        "model", "workers", "token", "here", "name", "context", "slots", "queue", "threads", "plugin", "pin",
        "ttl", "keep", "load", "patience",
    ];
    let fields = Fields::new(lua, table, "tw.pooling", &known)?;
    let number = |key| fields.optional::<u32>(key, "a whole number");
    let path = resolve(folder, &fields.required::<String>("model", "a string, the GGUF file")?);
    let stem = path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    let token = fields.token()?;
    let local = fields.optional::<bool>("here", "true or false")?.unwrap_or(true);
    let workers = workers(lua, &fields, token.as_ref())?;
    if workers.is_empty() && !local {
        return Err(TableError::Refused(
            "tw.pooling has no workers, and 'here' is false: there is nowhere to compute".to_owned(),
        ));
    }
    let slots = number("slots")?.unwrap_or(SLOTS);
    if slots == 0 {
        return Err(TableError::Refused("'slots' in tw.pooling must be at least 1".to_owned()));
    }
    let plugin = fields.optional::<String>("plugin", "a string")?.map(|name| match name.ends_with(".wasm") {
        true => resolve(folder, &name).display().to_string(),
        false => name,
    });
    Ok(PoolSpec {
        path,
        name: fields.optional("name", "a string")?.unwrap_or(stem),
        workers,
        local,
        context: fields.context()?,
        slots,
        queue: number("queue")?,
        threads: number("threads")?,
        plugin,
        pins: pins(&fields)?,
        ttl: seconds(&fields, "ttl")?,
        pinned: fields.optional::<bool>("keep", "true or false")?.unwrap_or(false),
        on_demand: on_demand(&fields)?,
        patience: seconds(&fields, "patience")?.unwrap_or(PATIENCE),
    })
}

fn seconds(fields: &Fields<'_>, key: &str) -> Result<Option<Duration>, TableError> {
    match fields.optional::<f64>(key, "a number of seconds")? {
        None => Ok(None),
        Some(seconds) if (0.0..=LONGEST).contains(&seconds) => Ok(Some(Duration::from_secs_f64(seconds))),
        Some(_) => Err(TableError::Refused(format!(
            "'{key}' in tw.pooling must be a number of seconds, up to a week"
        ))),
    }
}

fn on_demand(fields: &Fields<'_>) -> Result<bool, TableError> {
    match fields.optional::<String>("load", "a string: \"start\" or \"demand\"")?.as_deref() {
        None | Some("start") => Ok(false),
        Some("demand") => Ok(true),
        Some(other) => Err(TableError::Refused(format!(
            "'load' in tw.pooling must be \"start\" or \"demand\", not '{other}'"
        ))),
    }
}

/// Addresses, or tables with an address and a token of their own.
fn workers(lua: &Lua, fields: &Fields<'_>, token: Option<&Token>) -> Result<Vec<WorkerSpec>, TableError> {
    let example = "a list of addresses, as in { \"http://192.168.1.21:7711\" }";
    let given: Table = match fields.optional("workers", example)? {
        Some(given) => given,
        None => return Ok(Vec::new()),
    };
    let mut workers: Vec<WorkerSpec> = Vec::new();
    for value in given.sequence_values::<Value>() {
        let worker = match value? {
            Value::String(url) => worker(&url.to_string_lossy(), token, None)?,
            Value::Table(table) => {
                let fields = Fields::new(lua, &table, "a worker", &["url", "token", "name"])?;
                let url: String = fields.required("url", "a string, as in \"http://192.168.1.21:7711\"")?;
                let own = fields.token()?;
                worker(&url, own.as_ref().or(token), fields.optional("name", "a string")?)?
            }
            other => {
                return Err(TableError::Refused(format!(
                    "'workers' in tw.pooling must be {example}, not {}",
                    describe(&other)
                )));
            }
        };
        if workers.iter().any(|other| other.url == worker.url || other.name == worker.name) {
            return Err(TableError::Refused(format!("the worker {} is given twice", worker.name)));
        }
        workers.push(worker);
    }
    Ok(workers)
}

fn worker(url: &str, token: Option<&Token>, name: Option<String>) -> Result<WorkerSpec, TableError> {
    WorkerSpec::new(url, token, name).ok_or_else(|| {
        format!("'{url}' is not the address of a worker, such as \"http://192.168.1.21:7711\"").into()
    })
}

/// `pin = { ["ffn_.*_exps"] = "worker" }`; `"here"`: this machine's memory.
fn pins(fields: &Fields<'_>) -> Result<Vec<(String, Option<String>)>, TableError> {
    let example = "a table from patterns of tensor names to workers, as in { [\"ffn_.*_exps\"] = \"here\" }";
    let Some(given) = fields.optional::<Table>("pin", example)? else { return Ok(Vec::new()) };
    let mut pins = Vec::new();
    for pair in given.pairs::<String, String>() {
        let (pattern, worker) = pair.map_err(|_| format!("'pin' in tw.pooling must be {example}"))?;
        pins.push((pattern, Some(worker).filter(|worker| worker != "here")));
    }
    // Lua has no order; llama.cpp takes the first that fits.
    pins.sort();
    Ok(pins)
}
