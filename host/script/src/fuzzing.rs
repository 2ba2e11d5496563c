//! Fuzz targets. Each reads any value, and panics if a conversion has a fault.

use mlua::{Lua, Table, Value};
use tightwad_core::Request;

use crate::changes::changed_request;
use crate::json::to_json;

/// The deepest table that [`lua_value`] makes.
const MAX_DEPTH: usize = 300;
/// The keys that scripts use most.
const KEYS: [&str; 10] =
    ["messages", "role", "content", "prompt", "stop", "max_tokens", "temperature", "seed", "tools", "x"];

thread_local! {
    static LUA: Lua = Lua::new();
}

/// A Lua value becomes JSON, or the changes of a request, or an error.
pub fn lua_value(bytes: &[u8]) {
    LUA.with(|lua| {
        let mut reader = Reader { lua, bytes, tables: Vec::new() };
        let Ok(value) = reader.value(0) else { return };
        // Deep values are refused before they overflow the stack.
        let _ = to_json(lua, &value);
        if let Value::Table(changes) = value {
            let _ = changed_request(lua, &Request::default(), Some(changes));
        }
    });
}

/// Makes a Lua value of bytes: one byte chooses the type, and the next ones give the content.
struct Reader<'a> {
    lua: &'a Lua,
    bytes: &'a [u8],
    tables: Vec<Table>,
}

impl Reader<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.bytes.split_first() else { return 0 };
        self.bytes = rest;
        *first
    }

    fn number(&mut self) -> [u8; 8] {
        std::array::from_fn(|_| self.byte())
    }

    fn value(&mut self, depth: usize) -> mlua::Result<Value> {
        Ok(match self.byte() % 10 {
            0 => Value::Nil,
            1 => Value::Boolean(self.byte().is_multiple_of(2)),
            2 => Value::Integer(i64::from_le_bytes(self.number())),
            3 => Value::Number(f64::from_le_bytes(self.number())),
            4 => {
                let length = usize::from(self.byte()).min(self.bytes.len());
                let (text, rest) = self.bytes.split_at(length);
                self.bytes = rest;
                Value::String(self.lua.create_string(text)?)
            }
            5 => Value::String(self.lua.create_string(KEYS[usize::from(self.byte()) % KEYS.len()])?),
            6 => Value::Function(self.lua.create_function(|_, ()| Ok(()))?),
            // An earlier table: shared tables and cycles.
            7 if !self.tables.is_empty() => {
                let index = usize::from(self.byte()) % self.tables.len();
                Value::Table(self.tables[index].clone())
            }
            _ if depth < MAX_DEPTH => Value::Table(self.table(depth)?),
            _ => Value::Nil,
        })
    }

    fn table(&mut self, depth: usize) -> mlua::Result<Table> {
        let table = self.lua.create_table()?;
        self.tables.push(table.clone());
        let (pairs, is_list) = (self.byte() % 8, self.byte().is_multiple_of(2));
        for index in 1..=pairs {
            let key = if is_list { Value::Integer(index.into()) } else { self.value(depth + 1)? };
            let value = self.value(depth + 1)?;
            // Nil and NaN cannot be keys.
            let _ = table.raw_set(key, value);
        }
        Ok(table)
    }
}
