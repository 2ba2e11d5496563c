//! `tw.pooling{}`.

use std::path::Path;
use std::time::Duration;

use mlua::{Lua, Table, Value};
use tightwad_core::{PoolSpec, Token, WorkerSpec};

use crate::api::nodes::machine_url;
use crate::api::paths::resolve;
use crate::api::plugins::plugin;
use crate::keys::{Fields, Schema, describe};
use crate::table_error::TableError;

const FUNCTION: &str = "tw.pooling";
/// The default number of sequences that run at the same time. Each takes memory on every worker.
const DEFAULT_SLOTS: u32 = 4;
/// The default time that a request waits for a pool that loads or recovers.
const DEFAULT_WAIT_TIMEOUT: Duration = Duration::from_secs(300);
/// The maximum of `idle_timeout` and `wait_timeout`: a week.
const MAX_TIMEOUT_SECONDS: f64 = 7.0 * 86_400.0;
/// An address in error messages.
const WORKER_EXAMPLE: &str = "tightwad://192.168.1.21:7711";
/// The name of this machine in `override_tensors`.
const HOST: &str = "host";

pub(crate) const POOLING: Schema = Schema {
    name: FUNCTION,
    keys: &[
        "model",
        "workers",
        "token",
        "insecure",
        "include_host",
        "name",
        "context",
        "slots",
        "max_queue",
        "threads",
        "policy",
        "policy_sha256",
        "override_tensors",
        "idle_timeout",
        "keep_loaded",
        "load",
        "wait_timeout",
    ],
};

pub(crate) const WORKER: Schema = Schema { name: "a worker", keys: &["url", "token", "insecure", "name"] };

/// Reads the options of `tw.pooling{}`.
pub(crate) fn pooling(lua: &Lua, table: &Table, folder: &Path) -> Result<PoolSpec, TableError> {
    let fields = Fields::new(lua, table, &POOLING)?;
    let number = |key| fields.optional::<u32>(key, "a whole number");
    let path = resolve(folder, &fields.required::<String>("model", "a string, the GGUF file")?);
    let stem = path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    let token = fields.token("token")?;
    let include_host = fields.optional::<bool>("include_host", "true or false")?.unwrap_or(true);
    let access = Access { token, insecure: fields.flag("insecure")? };
    let workers = workers(lua, &fields, &access)?;
    if workers.is_empty() && !include_host {
        return Err(TableError::Refused(format!(
            "{FUNCTION} has no workers, and 'include_host' is false: no machine can hold the layers"
        )));
    }
    let slots = number("slots")?.unwrap_or(DEFAULT_SLOTS);
    if slots == 0 {
        return Err(TableError::Refused(format!("'slots' in {FUNCTION} must be at least 1")));
    }
    Ok(PoolSpec {
        path,
        name: fields.name()?.unwrap_or(stem),
        workers,
        include_host,
        context: fields.context()?,
        slots,
        max_queue: number("max_queue")?,
        threads: number("threads")?,
        policy: plugin(&fields, folder, "policy", FUNCTION)?,
        override_tensors: override_tensors(&fields)?,
        idle_timeout: seconds(&fields, "idle_timeout")?,
        keep_loaded: fields.flag("keep_loaded")?,
        on_demand: on_demand(&fields)?,
        wait_timeout: seconds(&fields, "wait_timeout")?.unwrap_or(DEFAULT_WAIT_TIMEOUT),
    })
}

fn seconds(fields: &Fields<'_>, key: &str) -> Result<Option<Duration>, TableError> {
    match fields.optional::<f64>(key, "a number of seconds")? {
        None => Ok(None),
        Some(seconds) if (0.0..=MAX_TIMEOUT_SECONDS).contains(&seconds) => {
            Ok(Some(Duration::from_secs_f64(seconds)))
        }
        Some(_) => Err(TableError::Refused(format!(
            "'{key}' in {FUNCTION} must be from 0 to {MAX_TIMEOUT_SECONDS} seconds (a week)"
        ))),
    }
}

fn on_demand(fields: &Fields<'_>) -> Result<bool, TableError> {
    match fields.optional::<String>("load", "a string: \"startup\" or \"on_demand\"")?.as_deref() {
        None | Some("startup") => Ok(false),
        Some("on_demand") => Ok(true),
        Some(other) => Err(TableError::Refused(format!(
            "'load' in {FUNCTION} must be \"startup\" or \"on_demand\", not '{other}'"
        ))),
    }
}

/// How the host reaches a worker.
struct Access {
    token: Option<Token>,
    insecure: bool,
}

/// Reads `workers`: addresses, or tables with an address and the worker's token.
fn workers(lua: &Lua, fields: &Fields<'_>, access: &Access) -> Result<Vec<WorkerSpec>, TableError> {
    let expected = "a list of addresses, as in { \"tightwad://192.168.1.21:7711\" }";
    let Some(list) = fields.optional::<Table>("workers", expected)? else { return Ok(Vec::new()) };
    let mut workers: Vec<WorkerSpec> = Vec::new();
    for value in list.sequence_values::<Value>() {
        let worker = match value? {
            Value::String(url) => worker(&url.to_string_lossy(), access, None)?,
            Value::Table(table) => {
                let fields = Fields::new(lua, &table, &WORKER)?;
                let url: String = fields.required("url", &format!("a string, as in \"{WORKER_EXAMPLE}\""))?;
                let token = fields.token("token")?.or_else(|| access.token.clone());
                let insecure = access.insecure || fields.flag("insecure")?;
                worker(&url, &Access { token, insecure }, fields.name()?)?
            }
            other => {
                return Err(TableError::Refused(format!(
                    "'workers' in {FUNCTION} must be {expected}, not {}",
                    describe(&other)
                )));
            }
        };
        if workers.iter().any(|other| other.url == worker.url || other.name == worker.name) {
            return Err(TableError::Refused(format!("the worker {} appears twice", worker.name)));
        }
        workers.push(worker);
    }
    Ok(workers)
}

fn worker(url: &str, access: &Access, name: Option<String>) -> Result<WorkerSpec, TableError> {
    let url = machine_url(url, WORKER_EXAMPLE, access.insecure)?;
    WorkerSpec::new(&url, access.token.as_ref(), name)
        .ok_or_else(|| format!("'{url}' is not the address of a worker, such as \"{WORKER_EXAMPLE}\"").into())
}

/// Reads `override_tensors`, as in `{ ["ffn_.*_exps"] = "worker" }`. `"host"` is this machine.
fn override_tensors(fields: &Fields<'_>) -> Result<Vec<(String, Option<String>)>, TableError> {
    let expected = "a table from patterns of tensor names to workers, as in { [\"ffn_.*_exps\"] = \"host\" }";
    let Some(table) = fields.optional::<Table>("override_tensors", expected)? else {
        return Ok(Vec::new());
    };
    let mut overrides = Vec::new();
    for pair in table.pairs::<String, String>() {
        let (pattern, worker) =
            pair.map_err(|_| format!("'override_tensors' in {FUNCTION} must be {expected}"))?;
        overrides.push((pattern, Some(worker).filter(|worker| worker != HOST)));
    }
    // A Lua table has no order, and llama.cpp takes the first pattern that matches.
    overrides.sort();
    Ok(overrides)
}
