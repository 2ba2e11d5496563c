//! Reads the tables that scripts pass. Errors about unknown keys and wrong types name the nearest key or the
//! expected type.

use std::path::Path;

use mlua::{FromLua, Lua, Table, Value};
use tightwad_core::{Token, parse_context_length, printable};

use crate::table_error::TableError;

/// The maximum length of a name, in bytes.
const MAX_NAME_BYTES: usize = 200;
/// The maximum length of a value in an error, in bytes.
const MAX_SHOWN_BYTES: usize = 200;
/// Above this number, an error shows a number with an exponent.
const MAX_PLAIN_NUMBER: f64 = 1e15;

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
            let key = printable(&key.to_string_lossy(), MAX_SHOWN_BYTES);
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
        if matches!(&value, Value::String(text) if text.to_str().is_err()) {
            return Err(TableError::NotUtf8 { key: key.to_owned(), table_name: self.table_name });
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

    /// The value of `key`, nil if there is none. For values that errors must not describe.
    pub(crate) fn value(&self, key: &str) -> mlua::Result<Value> {
        self.table.raw_get(key)
    }

    /// The text under `key` for a model, if there is one. Bytes that are not UTF-8 become replacement characters.
    pub(crate) fn text(&self, key: &str) -> Result<Option<String>, TableError> {
        match self.table.raw_get(key)? {
            Value::Nil => Ok(None),
            Value::String(text) => Ok(Some(text.to_string_lossy())),
            other => Err(self.wrong_type(key, "a string", describe(&other))),
        }
    }

    /// The list of texts under `key`, if there is one. Bytes that are not UTF-8 become replacement characters.
    pub(crate) fn texts(&self, key: &str) -> Result<Option<Vec<String>>, TableError> {
        let expected = "a list of strings";
        let list = match self.table.raw_get(key)? {
            Value::Nil => return Ok(None),
            Value::Table(list) => list,
            other => return Err(self.wrong_type(key, expected, describe(&other))),
        };
        let mut texts = Vec::new();
        for value in list.sequence_values() {
            match value? {
                Value::String(text) => texts.push(text.to_string_lossy()),
                other => {
                    return Err(self.wrong_type(key, expected, format!("a list with {}", describe(&other))));
                }
            }
        }
        Ok(Some(texts))
    }

    /// The flag `key`; false if it is missing.
    pub(crate) fn flag(&self, key: &str) -> Result<bool, TableError> {
        Ok(self.optional(key, "true or false")?.unwrap_or(false))
    }

    /// The name under `name`, if there is one.
    pub(crate) fn name(&self) -> Result<Option<String>, TableError> {
        let name: Option<String> = self.optional("name", "a string")?;
        if let Some(name) = name.as_deref().filter(|name| !is_name(name)) {
            let reason = name_rule(&format!("'name' in {}", self.table_name), name);
            return Err(TableError::Refused(reason));
        }
        Ok(name)
    }

    /// The value of `key`.
    pub(crate) fn required<T: FromLua>(&self, key: &str, expected: &str) -> Result<T, TableError> {
        self.optional(key, expected)?.ok_or_else(|| self.missing(key, expected))
    }

    /// The error of a missing `key`.
    pub(crate) fn missing(&self, key: &str, expected: &str) -> TableError {
        TableError::Missing {
            key: key.to_owned(),
            table_name: self.table_name,
            expected: expected.to_owned(),
        }
    }

    /// The value of `context`, if there is one: tokens, or a string such as `"32k"`.
    pub(crate) fn context(&self) -> Result<Option<u32>, TableError> {
        let expected = "a whole number, or a string such as \"32k\"";
        let value: Value = self.table.raw_get("context")?;
        let Value::String(text) = &value else { return self.optional("context", expected) };
        let tokens = parse_context_length(&text.to_string_lossy());
        tokens.map(Some).map_err(|_| self.wrong_type("context", expected, describe(&value)))
    }

    /// The bearer token under `key`, if there is one. Errors never contain the value, because it can be the secret.
    pub(crate) fn token(&self, key: &str) -> Result<Option<Token>, TableError> {
        let value: Value = self.table.raw_get(key)?;
        match value {
            Value::Nil => Ok(None),
            Value::String(text) => {
                let token = Token::new(&text.to_string_lossy());
                let wrong = |error| TableError::Refused(format!("'{key}' in {}: {error}", self.table_name));
                token.map(Some).map_err(wrong)
            }
            other => Err(self.wrong_type(key, "a string", describe_type(&other))),
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

/// True for a name that fits into logs, metrics and answers.
pub(crate) fn is_name(name: &str) -> bool {
    !name.is_empty() && printable(name, MAX_NAME_BYTES) == name
}

/// The error about `name`. `what` describes the name.
pub(crate) fn name_rule(what: &str, name: &str) -> String {
    let shown = printable(name, MAX_NAME_BYTES);
    format!("{what} must have 1 to {MAX_NAME_BYTES} bytes without control characters, not '{shown}'")
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
        Value::String(text) => {
            format!("the string '{}'", printable(&text.to_string_lossy(), MAX_SHOWN_BYTES))
        }
        Value::Integer(number) => format!("the number {number}"),
        Value::Number(number) if number.abs() > MAX_PLAIN_NUMBER => format!("the number {number:e}"),
        Value::Number(number) => format!("the number {number}"),
        Value::UserData(_) => "a backend or a request".to_owned(),
        Value::Nil => "nil".to_owned(),
        other => format!("a {}", other.type_name()),
    }
}

/// Describes the type of a value for an error that must not contain the value.
pub(crate) fn describe_type(value: &Value) -> String {
    match value {
        Value::String(_) => "a string".to_owned(),
        Value::Integer(_) | Value::Number(_) => "a number".to_owned(),
        other => describe(other),
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
            (
                "{ path = '\\xff' }",
                "'path' in tw.test is not UTF-8. Cut text between characters, with utf8.offset",
            ),
        ] {
            assert_eq!(read(source, path).unwrap_err(), expected);
        }
        for (source, expected) in [
            ("{ slots = '5' }", "'slots' in tw.test must be a whole number, not the string '5'"),
            ("{ slots = 1.5 }", "'slots' in tw.test must be a whole number, not the number 1.5"),
            ("{ slots = -1 }", "'slots' in tw.test must be a whole number, not the number -1"),
            ("{ slots = 1e300 }", "'slots' in tw.test must be a whole number, not the number 1e300"),
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
    fn name_is_short_and_printable() {
        let schema = Schema { name: "tw.test", keys: &["name"] };
        let name = |source: &str| {
            let lua = Lua::new();
            let table: Table = lua.load(source).eval().unwrap();
            Fields::new(&lua, &table, &schema).unwrap().name().map_err(|error| error.to_string())
        };
        assert_eq!(name("{ name = 'org/größe:1b' }").unwrap().as_deref(), Some("org/größe:1b"));
        for source in ["{ name = '' }", "{ name = 'a\\nb' }", "{ name = ('x'):rep(1000000) }"] {
            let error = name(source).unwrap_err();
            assert!(
                error.starts_with("'name' in tw.test must have 1 to 200 bytes") && error.len() < 400,
                "{error}"
            );
        }
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
