//! Tables from scripts: unknown keys and wrong kinds are errors that say what was meant.

use std::path::Path;

use mlua::{FromLua, Lua, Table, Value};
use tightwad_core::{Token, context_length};

/// Reads a table of a script. Relative paths in the table start at the folder.
pub(crate) type Read<S> = fn(&Lua, &Table, &Path) -> Result<S, String>;

/// A table that one of the functions of `tw` was given.
pub(crate) struct Fields<'a> {
    lua: &'a Lua,
    table: &'a Table,
    /// The function, as in `tw.model`.
    of: &'static str,
}

impl<'a> Fields<'a> {
    /// Checks that `table` has no other keys than `known`.
    pub(crate) fn new(
        lua: &'a Lua,
        table: &'a Table,
        of: &'static str,
        known: &[&str],
    ) -> Result<Self, String> {
        for pair in table.pairs::<Value, Value>() {
            let (key, _) = pair.map_err(|error| error.to_string())?;
            let Value::String(key) = &key else {
                return Err(format!("{of} takes named fields, as in {{ {} = ... }}", known[0]));
            };
            let key = key.to_string_lossy();
            if !known.contains(&key.as_str()) {
                return Err(unknown(&key, of, known));
            }
        }
        Ok(Self { lua, table, of })
    }

    /// The value of `key`, if any; `expected` says in words what it must be.
    pub(crate) fn optional<T: FromLua>(&self, key: &str, expected: &str) -> Result<Option<T>, String> {
        let value: Value = self.table.raw_get(key).map_err(|error| error.to_string())?;
        if value.is_nil() {
            return Ok(None);
        }
        let kind = describe(&value);
        // Lua would turn numbers into strings and back.
        let coerced = match &value {
            Value::String(_) => !expected.contains("string"),
            Value::Integer(_) | Value::Number(_) => !expected.contains("number"),
            _ => false,
        };
        match T::from_lua(value, self.lua) {
            Ok(value) if !coerced => Ok(Some(value)),
            _ => Err(format!("'{key}' in {} must be {expected}, not {kind}", self.of)),
        }
    }

    /// The value of `context`, if any: tokens, or a string such as `"32k"`.
    pub(crate) fn context(&self) -> Result<Option<u32>, String> {
        let expected = "a whole number, or a string such as \"32k\"";
        let value: Value = self.table.raw_get("context").map_err(|error| error.to_string())?;
        let Value::String(text) = &value else { return self.optional("context", expected) };
        let tokens = context_length(&text.to_string_lossy());
        let wrong = |_| format!("'context' in {} must be {expected}, not {}", self.of, describe(&value));
        tokens.map(Some).map_err(wrong)
    }

    /// The value of `token`, if any.
    pub(crate) fn token(&self) -> Result<Option<Token>, String> {
        let value: Value = self.table.raw_get("token").map_err(|error| error.to_string())?;
        match value {
            Value::Nil => Ok(None),
            Value::String(text) => {
                let token = Token::new(&text.to_string_lossy());
                token.map(Some).map_err(|error| format!("'token' in {}: {error}", self.of))
            }
            // The value may be the secret.
            other => Err(format!("'token' in {} must be a string, not a {}", self.of, other.type_name())),
        }
    }

    /// The value of `key`.
    pub(crate) fn required<T: FromLua>(&self, key: &str, expected: &str) -> Result<T, String> {
        let found = self.optional(key, expected)?;
        found.ok_or_else(|| format!("{} needs '{key}': {expected}", self.of))
    }
}

fn unknown(key: &str, of: &str, known: &[&str]) -> String {
    let close = known.iter().map(|known| (strsim::damerau_levenshtein(key, known), *known)).min();
    match close {
        Some((distance, known)) if distance <= 1 + key.len() / 3 => {
            format!("unknown key '{key}' in {of}; did you mean '{known}'?")
        }
        _ => format!("unknown key '{key}' in {of}; it knows {}", known.join(", ")),
    }
}

/// What a value is, for people.
pub(crate) fn describe(value: &Value) -> String {
    match value {
        Value::String(text) => format!("the string '{}'", text.to_string_lossy()),
        Value::Integer(number) => format!("the number {number}"),
        Value::Number(number) => format!("the number {number}"),
        Value::UserData(_) => "a backend".to_owned(),
        other => format!("a {}", other.type_name()),
    }
}
