//! Converts Lua values to JSON.
//!
//! Invariant: the size and the depth of a conversion have limits, because a table can contain itself, or contain
//! another table many times.

use mlua::{Lua, LuaSerdeExt, Table, Value};
use serde_json::{Map, Number};

/// The maximum nesting of tables: serde_json's limit for the bodies of requests.
const MAX_DEPTH: usize = 128;
/// The maximum size of a converted value, in bytes.
const MAX_JSON_BYTES: usize = 64 << 20;
/// The maximum length of a place in an error, in bytes.
const MAX_PATH_BYTES: usize = 60;
/// The bytes of a value without its text.
const BYTES_PER_VALUE: usize = 64;

/// The reason why a Lua value has no JSON.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}{reason}")]
pub(crate) struct JsonError {
    /// The place in the value, such as `[2].content `. Empty for the value itself.
    path: String,
    reason: String,
}

impl JsonError {
    fn new(reason: impl Into<String>) -> Self {
        Self { path: String::new(), reason: reason.into() }
    }

    /// The error in the child at `step` of a table.
    fn below(mut self, step: &str) -> Self {
        match self.path.len() {
            0 => self.path = format!("{step} "),
            1..MAX_PATH_BYTES => self.path.insert_str(0, step),
            _ => self.path = format!("{step}... "),
        }
        self
    }
}

/// The JSON of `value`. Bytes that are not UTF-8 become replacement characters.
///
/// # Errors
///
/// [`JsonError`] for a function, a number that is not finite, a list with gaps, or a value that is too deep or too
/// large.
pub(crate) fn to_json(lua: &Lua, value: &Value) -> Result<serde_json::Value, JsonError> {
    Converter { lua, bytes: 0, max_bytes: MAX_JSON_BYTES }.value(value, 0)
}

struct Converter<'a> {
    lua: &'a Lua,
    /// The size of the JSON so far.
    bytes: usize,
    max_bytes: usize,
}

impl Converter<'_> {
    fn value(&mut self, value: &Value, depth: usize) -> Result<serde_json::Value, JsonError> {
        self.add(BYTES_PER_VALUE)?;
        Ok(match value {
            Value::Nil => serde_json::Value::Null,
            other if *other == self.lua.null() => serde_json::Value::Null,
            Value::Boolean(flag) => (*flag).into(),
            Value::Integer(number) => (*number).into(),
            Value::Number(number) => Number::from_f64(*number)
                .ok_or_else(|| JsonError::new(format!("is {number}, which is not a finite number")))?
                .into(),
            Value::String(text) => self.text(text)?.into(),
            Value::Table(table) => self.table(table, depth)?,
            other => return Err(JsonError::new(format!("is a {}", other.type_name()))),
        })
    }

    fn table(&mut self, table: &Table, depth: usize) -> Result<serde_json::Value, JsonError> {
        if depth == MAX_DEPTH {
            return Err(JsonError::new(format!(
                "is nested deeper than {MAX_DEPTH} tables, or contains itself"
            )));
        }
        let is_array = table.raw_len() > 0 || table.metatable() == Some(self.lua.array_metatable());
        if is_array { self.list(table, depth) } else { self.object(table, depth) }
    }

    fn list(&mut self, table: &Table, depth: usize) -> Result<serde_json::Value, JsonError> {
        let mut list = Vec::new();
        let length = table.raw_len();
        for position in 1..=length {
            let value: Value = table.raw_get(position).map_err(lua_error)?;
            if value.is_nil() {
                return Err(JsonError::new(format!("has no value at position {position}")));
            }
            list.push(self.value(&value, depth + 1).map_err(|error| error.below(&format!("[{position}]")))?);
        }
        for pair in table.pairs::<Value, Value>() {
            let (key, _) = pair.map_err(lua_error)?;
            let is_position = key.as_integer().is_some_and(|key| key >= 1 && key as usize <= length);
            if !is_position {
                return Err(JsonError::new("has both positions and names, or gaps between positions"));
            }
        }
        Ok(list.into())
    }

    fn object(&mut self, table: &Table, depth: usize) -> Result<serde_json::Value, JsonError> {
        let mut object = Map::new();
        for pair in table.pairs::<Value, Value>() {
            let (key, value) = pair.map_err(lua_error)?;
            let Value::String(key) = key else {
                return Err(JsonError::new(format!(
                    "has a key of the type {}; use strings",
                    key.type_name()
                )));
            };
            let key = self.text(&key)?;
            let value = self.value(&value, depth + 1).map_err(|error| error.below(&format!(".{key}")))?;
            object.insert(key, value);
        }
        Ok(object.into())
    }

    fn text(&mut self, text: &mlua::LuaString) -> Result<String, JsonError> {
        self.add(text.as_bytes().len())?;
        Ok(text.to_string_lossy())
    }

    fn add(&mut self, bytes: usize) -> Result<(), JsonError> {
        self.bytes += bytes;
        if self.bytes > self.max_bytes {
            return Err(JsonError::new(format!("is larger than {} MB", self.max_bytes >> 20)));
        }
        Ok(())
    }
}

fn lua_error(error: mlua::Error) -> JsonError {
    JsonError::new(format!("cannot be read: {error}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Converts the value that the Lua code `source` returns.
    fn convert(source: &str) -> Result<serde_json::Value, String> {
        let lua = Lua::new();
        lua.globals().set("array", lua.to_value(&json!([])).unwrap()).unwrap();
        let value: Value = lua.load(source).eval().unwrap();
        let mut converter = Converter { lua: &lua, bytes: 0, max_bytes: 1 << 20 };
        converter.value(&value, 0).map_err(|error| error.to_string())
    }

    #[test]
    fn tables_become_lists_and_objects() {
        let source =
            "return { { role = 'user', content = '\\xffé', n = 1.5, list = array, deep = { {} } }, true }";
        let expected =
            json!([{"role": "user", "content": "\u{fffd}é", "n": 1.5, "list": [], "deep": [{}]}, true]);
        assert_eq!(convert(source), Ok(expected));
    }

    #[test]
    fn value_without_json_is_refused_with_its_place() {
        for (source, expected) in [
            ("return { { a = { print } } }", "[1].a[1] is a function"),
            ("return { x = 0/0 }", ".x is NaN, which is not a finite number"),
            ("return { 1, 2, x = 3 }", "has both positions and names, or gaps between positions"),
            ("return { 1, nil, 3 }", "has no value at position 2"),
            ("return { [5] = 1 }", "has a key of the type integer; use strings"),
            ("return { [true] = 1 }", "has a key of the type boolean; use strings"),
        ] {
            assert_eq!(convert(source).unwrap_err(), expected, "{source}");
        }
    }

    #[test]
    fn table_without_end_is_refused() {
        let cyclic = convert("local t = {}; t.t = t; return t").unwrap_err();
        assert!(cyclic.ends_with(" is nested deeper than 128 tables, or contains itself"), "{cyclic}");
        for shared in [
            "local t = {}; for _ = 1, 100 do t = { t, t } end; return t",
            "local t, s = {}, ('x'):rep(1 << 18); for i = 1, 100 do t[i] = s end; return t",
        ] {
            let error = convert(shared).unwrap_err();
            assert!(error.ends_with("is larger than 1 MB"), "{error}");
        }
    }
}
