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
            // A number may be the secret.
            Value::Integer(_) | Value::Number(_) => {
                Err(self.wrong("token", "a string", "a number".to_owned()))
            }
            other => Err(self.wrong("token", "a string", describe(&other))),
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

#[cfg(test)]
mod tests {
    use super::*;

    const FIELDS: [&str; 4] = ["path", "context", "token", "slots"];

    /// Reads the table that `source` makes.
    fn read<T>(source: &str, read: impl FnOnce(&Fields<'_>) -> Result<T, TableError>) -> Result<T, String> {
        let lua = Lua::new();
        let table: Table = lua.load(source).eval().unwrap();
        let fields = Fields::new(&lua, &table, "tw.test", &FIELDS).map_err(|error| error.to_string())?;
        read(&fields).map_err(|error| error.to_string())
    }

    fn refused(source: &str) -> String {
        read(source, |_| Ok(())).unwrap_err()
    }

    #[test]
    fn an_unknown_key_is_refused_with_a_close_one() {
        assert_eq!(refused("{ pth = 1 }"), "unknown key 'pth' in tw.test; did you mean 'path'?");
        assert_eq!(
            refused("{ colour = 1 }"),
            "unknown key 'colour' in tw.test; it knows path, context, token, slots"
        );
        assert_eq!(refused("{ 'a' }"), "tw.test takes named fields, as in { path = ... }");
    }

    #[test]
    fn a_value_must_have_its_kind() {
        let path = |fields: &Fields<'_>| fields.optional::<String>("path", "a string");
        assert_eq!(read("{ path = 'a' }", path).unwrap().as_deref(), Some("a"));
        assert_eq!(read("{}", path).unwrap(), None);
        let slots = |fields: &Fields<'_>| fields.optional::<u32>("slots", "a whole number");
        assert_eq!(read("{ slots = 3 }", slots).unwrap(), Some(3));
        // Lua would make a string of a number, and a number of a string.
        for (source, expected) in [
            ("{ path = 5 }", "'path' in tw.test must be a string, not the number 5"),
            ("{ path = {} }", "'path' in tw.test must be a string, not a table"),
            ("{ path = true }", "'path' in tw.test must be a string, not a boolean"),
        ] {
            assert_eq!(read(source, path).unwrap_err(), expected);
        }
        for (source, expected) in [
            ("{ slots = '5' }", "'slots' in tw.test must be a whole number, not the string '5'"),
            ("{ slots = 1.5 }", "'slots' in tw.test must be a whole number, not the number 1.5"),
            ("{ slots = -1 }", "'slots' in tw.test must be a whole number, not the number -1"),
        ] {
            assert_eq!(read(source, slots).unwrap_err(), expected);
        }
    }

    #[test]
    fn a_missing_value_is_named() {
        let missing = read("{}", |fields| fields.required::<String>("path", "a string, the file"));
        assert_eq!(missing.unwrap_err(), "tw.test needs 'path': a string, the file");
    }

    #[test]
    fn a_context_is_a_number_or_has_a_unit() {
        let context = |source: &str| read(source, |fields| fields.context());
        assert_eq!(context("{}").unwrap(), None);
        assert_eq!(context("{ context = 4096 }").unwrap(), Some(4096));
        assert_eq!(context("{ context = '32k' }").unwrap(), Some(32 << 10));
        assert_eq!(
            context("{ context = 'big' }").unwrap_err(),
            "'context' in tw.test must be a whole number, or a string such as \"32k\", not the string 'big'"
        );
    }

    #[test]
    fn a_token_is_never_shown() {
        let token = |source: &str| read(source, |fields| fields.token());
        assert_eq!(token("{}").unwrap(), None);
        assert_eq!(token("{ token = 'secret-12345' }").unwrap().unwrap().secret(), "secret-12345");
        assert_eq!(
            token("{ token = 987654 }").unwrap_err(),
            "'token' in tw.test must be a string, not a number"
        );
        let empty = token("{ token = '' }").unwrap_err();
        assert!(empty.starts_with("'token' in tw.test: "), "{empty}");
    }
}
