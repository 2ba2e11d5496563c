//! Tables from scripts: unknown keys and wrong kinds are errors that say what was meant.

use std::path::Path;

use mlua::{FromLua, Lua, Table, Value};
use tightwad_core::{Token, context_length};

use crate::table_error::TableError;

/// Reads a table of a script. Relative paths in the table start at the folder.
pub(crate) type Read<S> = fn(&Lua, &Table, &Path) -> Result<S, TableError>;

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
    ) -> Result<Self, TableError> {
        for pair in table.pairs::<Value, Value>() {
            let (key, _) = pair?;
            let Value::String(key) = &key else {
                return Err(TableError::Unnamed { of, example: known[0].to_owned() });
            };
            let key = key.to_string_lossy();
            if !known.contains(&key.as_str()) {
                let hint = hint(&key, known);
                return Err(TableError::UnknownKey { key, of, hint });
            }
        }
        Ok(Self { lua, table, of })
    }

    /// The value of `key`, if any; `expected` says in words what it must be.
    pub(crate) fn optional<T: FromLua>(&self, key: &str, expected: &str) -> Result<Option<T>, TableError> {
        let value: Value = self.table.raw_get(key)?;
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
            _ => Err(self.wrong(key, expected, kind)),
        }
    }

    /// The value of `context`, if any: tokens, or a string such as `"32k"`.
    pub(crate) fn context(&self) -> Result<Option<u32>, TableError> {
        let expected = "a whole number, or a string such as \"32k\"";
        let value: Value = self.table.raw_get("context")?;
        let Value::String(text) = &value else { return self.optional("context", expected) };
        let tokens = context_length(&text.to_string_lossy());
        tokens.map(Some).map_err(|_| self.wrong("context", expected, describe(&value)))
    }

    /// The value of `token`, if any.
    pub(crate) fn token(&self) -> Result<Option<Token>, TableError> {
        let value: Value = self.table.raw_get("token")?;
        match value {
            Value::Nil => Ok(None),
            Value::String(text) => {
                let token = Token::new(&text.to_string_lossy());
                let wrong = |error| TableError::Refused(format!("'token' in {}: {error}", self.of));
                token.map(Some).map_err(wrong)
            }
            // The value may be the secret.
            other => Err(self.wrong("token", "a string", format!("a {}", other.type_name()))),
        }
    }

    /// The value of `key`.
    pub(crate) fn required<T: FromLua>(&self, key: &str, expected: &str) -> Result<T, TableError> {
        let found = self.optional(key, expected)?;
        let (key, expected) = (key.to_owned(), expected.to_owned());
        found.ok_or(TableError::Missing { key, of: self.of, expected })
    }

    fn wrong(&self, key: &str, expected: &str, found: String) -> TableError {
        TableError::Kind { key: key.to_owned(), of: self.of, expected: expected.to_owned(), found }
    }
}

/// The way out for an unknown key.
fn hint(key: &str, known: &[&str]) -> String {
    let close = known.iter().map(|known| (strsim::damerau_levenshtein(key, known), *known)).min();
    match close {
        Some((distance, known)) if distance <= 1 + key.len() / 3 => format!("did you mean '{known}'?"),
        _ => format!("it knows {}", known.join(", ")),
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
