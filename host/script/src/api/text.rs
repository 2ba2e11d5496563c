//! `tw.llama_server{}`, `tw.ollama{}` and `tw.openai{}`.

use std::path::Path;
use std::time::Duration;

use mlua::{Lua, Table};
use tightwad_remote::{DEFAULT_FIRST_TOKEN_TIMEOUT, Dialect, TextServerSpec, Verification};

use crate::api::nodes::url;
use crate::api::paths::resolve;
use crate::keys::{Fields, ReadOptions, Schema};
use crate::table_error::TableError;

pub(crate) const LLAMA_SERVER: Schema = Schema {
    name: "tw.llama_server",
    keys: &["url", "model", "api_key", "name", "verify", "first_token_timeout"],
};

pub(crate) const OLLAMA: Schema =
    Schema { name: "tw.ollama", keys: &["url", "model", "api_key", "name", "verify", "first_token_timeout"] };

pub(crate) const OPENAI: Schema = Schema {
    name: "tw.openai",
    keys: &["url", "model", "api_key", "name", "verify", "first_token_timeout", "tokenizer"],
};

/// The functions by name.
pub(crate) const SERVERS: [(&str, ReadOptions<TextServerSpec>); 3] = [
    ("llama_server", |lua, table, folder| read(lua, table, folder, &LLAMA_SERVER, Dialect::LlamaServer)),
    ("ollama", |lua, table, folder| read(lua, table, folder, &OLLAMA, Dialect::Ollama)),
    ("openai", |lua, table, folder| read(lua, table, folder, &OPENAI, Dialect::OpenAi)),
];

fn read(
    lua: &Lua,
    table: &Table,
    folder: &Path,
    schema: &Schema,
    dialect: Dialect,
) -> Result<TextServerSpec, TableError> {
    let fields = Fields::new(lua, table, schema)?;
    let example = match dialect {
        Dialect::LlamaServer => "http://192.168.1.20:8080",
        Dialect::Ollama => "http://192.168.1.20:11434",
        Dialect::OpenAi => "https://api.example.com",
    };
    let verify = verification(&fields, folder, schema.name, dialect)?;
    let first_token_timeout = match fields.optional::<f64>("first_token_timeout", "a number of seconds")? {
        None => DEFAULT_FIRST_TOKEN_TIMEOUT,
        Some(seconds) if (1.0..=86_400.0).contains(&seconds) => Duration::from_secs_f64(seconds),
        Some(_) => {
            let name = schema.name;
            let message = format!("'first_token_timeout' in {name} must be from 1 to 86400 seconds");
            return Err(TableError::Refused(message));
        }
    };
    Ok(TextServerSpec {
        dialect,
        url: url(&fields, example)?,
        model: fields.optional("model", "a string")?,
        api_key: fields.token("api_key")?,
        name: fields.name()?,
        verify,
        first_token_timeout,
    })
}

/// Reads `verify` and `tokenizer`: whether the server can be a target, and how it verifies.
fn verification(
    fields: &Fields<'_>,
    folder: &Path,
    table_name: &str,
    dialect: Dialect,
) -> Result<Verification, TableError> {
    let verify: Option<String> = fields.optional("verify", "a string")?;
    let tokenizer: Option<String> =
        fields.optional("tokenizer", "a string, a GGUF file of the same model")?;
    let has_logprobs = dialect == Dialect::OpenAi;
    match (verify.as_deref(), tokenizer) {
        (None, None) => Ok(Verification::None),
        (Some("replay"), None) => Ok(Verification::Replay),
        (Some("logprobs"), Some(path)) if has_logprobs => Ok(Verification::Logprobs(resolve(folder, &path))),
        (Some("logprobs"), None) if has_logprobs => Err(TableError::Refused(format!(
            "verify = \"logprobs\" in {table_name} needs 'tokenizer': a GGUF file of the same model"
        ))),
        (_, Some(_)) => {
            Err(TableError::Refused(format!("'tokenizer' in {table_name} needs verify = \"logprobs\"")))
        }
        (Some(other), None) => {
            let methods = if has_logprobs { "\"replay\" or \"logprobs\"" } else { "\"replay\"" };
            Err(TableError::Refused(format!("'verify' in {table_name} can be {methods}, not '{other}'")))
        }
    }
}
