//! `tw.llama_server{}`, `tw.ollama{}` and `tw.openai{}`.

use std::path::Path;

use mlua::{Lua, Table};

use super::Read;
use super::nodes::url;
use crate::backend::{Dialect, TextServerSpec};
use crate::script::keys::Fields;

/// The functions by name.
pub(super) const SERVERS: [(&str, Read<TextServerSpec>); 3] = [
    ("llama_server", |lua, table, _: &Path| read(lua, table, "tw.llama_server", Dialect::LlamaServer)),
    ("ollama", |lua, table, _: &Path| read(lua, table, "tw.ollama", Dialect::Ollama)),
    ("openai", |lua, table, _: &Path| read(lua, table, "tw.openai", Dialect::OpenAi)),
];

fn read(lua: &Lua, table: &Table, of: &'static str, dialect: Dialect) -> Result<TextServerSpec, String> {
    let fields = Fields::new(lua, table, of, &["url", "model", "token", "name", "verify"])?;
    let example = match dialect {
        Dialect::LlamaServer => "http://192.168.1.20:8080",
        Dialect::Ollama => "http://192.168.1.20:11434",
        Dialect::OpenAi => "https://api.example.com",
    };
    let verify: Option<String> = fields.optional("verify", "a string")?;
    if let Some(other) = verify.as_ref().filter(|way| *way != "replay") {
        return Err(format!("'verify' in {of} can be \"replay\", not '{other}'"));
    }
    Ok(TextServerSpec {
        dialect,
        url: url(&fields, example)?,
        model: fields.optional("model", "a string")?,
        token: fields.optional("token", "a string")?,
        name: fields.optional("name", "a string")?,
        replay: verify.is_some(),
    })
}
