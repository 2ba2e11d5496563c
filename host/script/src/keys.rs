//! Reads the tables that scripts pass. Errors about unknown keys and wrong types name the nearest key or the
//! expected type.

use std::path::Path;

use mlua::{FromLua, Lua, Table, Value};
use tightwad_core::{Token, parse_context_length};

use crate::table_error::TableError;

/// Reads the options of a function of `tw`. Relative paths in the table start at the folder.
pub(crate) type ReadOptions<S> = fn(&Lua, &Table, &Path) -> Result<S, TableError>;

/// The keys of one kind of table.
pub(crate) struct Schema {
    /// The name in errors, such as `tw.model`.
    pub(crate) name: &'static str,
    /// All keys, in the order in which errors list them.
    pub(crate) keys: &'static [&'static str],
}

/// A table that has only known keys.
pub(crate) struct Fields<'a> {
    lua: &'a Lua,
    table: &'a Table,
    /// The schema's name.
    table_name: &'static str,
}

impl<'a> Fields<'a> {
    /// Checks that `table` has only keys of `schema`.
    pub(crate) fn new(lua: &'a Lua, table: &'a Table, schema: &Schema) -> Result<Self, TableError> {
        let (table_name, keys) = (schema.name, schema.keys);
        for pair in table.pairs::<Value, Value>() {
            let (key, _) = pair?;
            let Value::String(key) = &key else {
                return Err(TableError::Unnamed { table_name, example: keys[0].to_owned() });
            };
            let key = key.to_string_lossy();
            if !keys.contains(&key.as_str()) {
                let hint = match nearest(&key, keys) {
                    Some(near) => format!("did you mean '{near}'?"),
                    None => format!("it has {}", keys.join(", ")),
                };
                return Err(TableError::UnknownKey { key, table_name, hint });
            }
        }
        Ok(Self { lua, table, table_name })
    }

    /// The value of `key`, if there is one. `expected` describes the type in errors.
    pub(crate) fn optional<T: FromLua>(&self, key: &str, expected: &str) -> Result<Option<T>, TableError> {
        let value: Value = self.table.raw_get(key)?;
        if value.is_nil() {
            return Ok(None);
        }
        let description = describe(&value);
        // Lua converts numbers to strings and strings to numbers.
        let converted = match &value {
            Value::String(_) => !expected.contains("string"),
            Value::Integer(_) | Value::Number(_) => !expected.contains("number"),
            _ => false,
        };
        match T::from_lua(value, self.lua) {
            Ok(value) if !converted => Ok(Some(value)),
            _ => Err(self.wrong_type(key, expected, description)),
        }
    }

    /// The value of `key`.
    pub(crate) fn required<T: FromLua>(&self, key: &str, expected: &str) -> Result<T, TableError> {
        let value = self.optional(key, expected)?;
        let (key, expected) = (key.to_owned(), expected.to_owned());
        value.ok_or(TableError::Missing { key, table_name: self.table_name, expected })
    }

    /// The value of `context`, if there is one: tokens, or a string such as `"32k"`.
    pub(crate) fn context(&self) -> Result<Option<u32>, TableError> {
        let expected = "a whole number, or a string such as \"32k\"";
        let value: Value = self.table.raw_get("context")?;
        let Value::String(text) = &value else { return self.optional("context", expected) };
        let tokens = parse_context_length(&text.to_string_lossy());
        tokens.map(Some).map_err(|_| self.wrong_type("context", expected, describe(&value)))
    }

    /// The bearer token under `key`, if there is one. Errors never contain its text.
    pub(crate) fn token(&self, key: &str) -> Result<Option<Token>, TableError> {
        let value: Value = self.table.raw_get(key)?;
        match value {
            Value::Nil => Ok(None),
            Value::String(text) => {
                let token = Token::new(&text.to_string_lossy());
                let wrong = |error| TableError::Refused(format!("'{key}' in {}: {error}", self.table_name));
                token.map(Some).map_err(wrong)
            }
            // The error must not contain the number, because it can be the secret.
            Value::Integer(_) | Value::Number(_) => {
                Err(self.wrong_type(key, "a string", "a number".to_owned()))
            }
            other => Err(self.wrong_type(key, "a string", describe(&other))),
        }
    }

    fn wrong_type(&self, key: &str, expected: &str, found: String) -> TableError {
        TableError::WrongType {
            key: key.to_owned(),
            table_name: self.table_name,
            expected: expected.to_owned(),
            found,
        }
    }
}

/// The known name that is most like `name`, unless the two differ too much for a typing error.
pub(crate) fn nearest<'n>(name: &str, known: &[&'n str]) -> Option<&'n str> {
    let distance = |known: &&'n str| (strsim::damerau_levenshtein(name, known), *known);
    let (distance, near) = known.iter().map(distance).min()?;
    (distance <= 1 + name.len() / 3).then_some(near)
}

/// Describes a value for an error.
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

    const SCHEMA: Schema = Schema { name: "tw.test", keys: &["path", "context", "token", "slots"] };

    /// Reads the table that the Lua expression `source` makes.
    fn read<T>(source: &str, read: impl FnOnce(&Fields<'_>) -> Result<T, TableError>) -> Result<T, String> {
        let lua = Lua::new();
        let table: Table = lua.load(source).eval().unwrap();
        let fields = Fields::new(&lua, &table, &SCHEMA).map_err(|error| error.to_string())?;
        read(&fields).map_err(|error| error.to_string())
    }

    fn error(source: &str) -> String {
        read(source, |_| Ok(())).unwrap_err()
    }

    #[test]
    fn unknown_key_error_names_nearest_key() {
        assert_eq!(error("{ pth = 1 }"), "unknown key 'pth' in tw.test; did you mean 'path'?");
        assert_eq!(
            error("{ colour = 1 }"),
            "unknown key 'colour' in tw.test; it has path, context, token, slots"
        );
        assert_eq!(error("{ 'a' }"), "tw.test takes named fields, as in { path = ... }");
    }

    #[test]
    fn value_of_wrong_type_is_refused() {
        let path = |fields: &Fields<'_>| fields.optional::<String>("path", "a string");
        assert_eq!(read("{ path = 'a' }", path).unwrap().as_deref(), Some("a"));
        assert_eq!(read("{}", path).unwrap(), None);
        let slots = |fields: &Fields<'_>| fields.optional::<u32>("slots", "a whole number");
        assert_eq!(read("{ slots = 3 }", slots).unwrap(), Some(3));
        // Lua converts numbers to strings and strings to numbers.
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
    fn missing_value_error_names_key() {
        let missing = read("{}", |fields| fields.required::<String>("path", "a string, the file"));
        assert_eq!(missing.unwrap_err(), "tw.test needs 'path': a string, the file");
    }

    #[test]
    fn context_is_number_or_has_unit() {
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
    fn token_error_hides_token() {
        let token = |source: &str| read(source, |fields| fields.token("token"));
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
