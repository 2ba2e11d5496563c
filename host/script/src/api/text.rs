//! `tw.llama_server{}`, `tw.ollama{}` and `tw.openai{}`.

use std::path::Path;

use mlua::{Lua, Table};
use tightwad_remote::{Dialect, TextServerSpec, Verification};

use crate::api::nodes::url;
use crate::api::paths::resolve;
use crate::keys::{Fields, Read};
use crate::table_error::TableError;

/// The functions by name.
pub(crate) const SERVERS: [(&str, Read<TextServerSpec>); 3] = [
    ("llama_server", |lua, table, folder| read(lua, table, folder, "tw.llama_server", Dialect::LlamaServer)),
    ("ollama", |lua, table, folder| read(lua, table, folder, "tw.ollama", Dialect::Ollama)),
    ("openai", |lua, table, folder| read(lua, table, folder, "tw.openai", Dialect::OpenAi)),
];

fn read(
    lua: &Lua,
    table: &Table,
    folder: &Path,
    of: &'static str,
    dialect: Dialect,
) -> Result<TextServerSpec, TableError> {
    let fields = Fields::new(lua, table, of, &["url", "model", "token", "name", "verify", "tokenizer"])?;
    let example = match dialect {
        Dialect::LlamaServer => "http://192.168.1.20:8080",
        Dialect::Ollama => "http://192.168.1.20:11434",
        Dialect::OpenAi => "https://api.example.com",
    };
    let verify = verification(&fields, folder, of, dialect)?;
    Ok(TextServerSpec {
        dialect,
        url: url(&fields, example)?,
        model: fields.optional("model", "a string")?,
        token: fields.token()?,
        name: fields.optional("name", "a string")?,
        verify,
    })
}

/// Whether and how the server may be a target.
fn verification(
    fields: &Fields<'_>,
    folder: &Path,
    of: &str,
    dialect: Dialect,
) -> Result<Verification, TableError> {
    let way: Option<String> = fields.optional("verify", "a string")?;
    let tokenizer: Option<String> =
        fields.optional("tokenizer", "a string, a GGUF file of the same model")?;
    let openai = dialect == Dialect::OpenAi;
    match (way.as_deref(), tokenizer) {
        (None, None) => Ok(Verification::None),
        (Some("replay"), None) => Ok(Verification::Replay),
        (Some("logprobs"), Some(path)) if openai => Ok(Verification::Logprobs(resolve(folder, &path))),
        (Some("logprobs"), None) if openai => Err(TableError::Refused(format!(
            "verify = \"logprobs\" in {of} needs 'tokenizer': a GGUF file of the same model"
        ))),
        (_, Some(_)) => {
            Err(TableError::Refused(format!("'tokenizer' in {of} goes with verify = \"logprobs\"")))
        }
        (Some(other), None) => {
            let ways = if openai { "\"replay\" or \"logprobs\"" } else { "\"replay\"" };
            Err(TableError::Refused(format!("'verify' in {of} can be {ways}, not '{other}'")))
        }
    }
}
