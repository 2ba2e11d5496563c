//! The values that the factory made for a script, for further runs of the same script.
//!
//! Invariant: the n-th call of a function with equal options gives the same value in every run.

use std::any::Any;
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use mlua::{Table, Value};
use tightwad_core::sync;

use crate::handle::BackendHandle;

/// The maximum number of stored values. A script that makes more gets new ones in each run.
const MAX_VALUES: usize = 10_000;
/// The maximum nesting of options.
const MAX_DEPTH: usize = 16;

/// A function and its options, as bytes.
type Key = Vec<u8>;

/// A call: its key, and the number of earlier calls of the run with this key.
pub(crate) type CallKey = (Key, usize);

/// The values of all runs of a script.
#[derive(Default)]
pub(crate) struct MadeValues(Mutex<HashMap<CallKey, Arc<dyn Any + Send + Sync>>>);

impl MadeValues {
    /// The value of the call, if an earlier run made it.
    pub(crate) fn get<T: Clone + 'static>(&self, call: &CallKey) -> Option<T> {
        sync::lock(&self.0).get(call)?.downcast_ref::<T>().cloned()
    }

    /// Stores the value of the call.
    pub(crate) fn insert<T: Send + Sync + 'static>(&self, call: CallKey, value: T) {
        let mut values = sync::lock(&self.0);
        if values.len() < MAX_VALUES {
            values.entry(call).or_insert_with(|| Arc::new(value));
        }
    }
}

/// Counts the calls of one run.
#[derive(Default)]
pub(crate) struct RunCalls(RefCell<HashMap<Key, usize>>);

impl RunCalls {
    /// The next call of `function` with `options`. `None`: the options have no key.
    pub(crate) fn next(&self, function: &str, options: &Table) -> Option<CallKey> {
        let mut key = function.as_bytes().to_vec();
        write_table(options, MAX_DEPTH, &mut key)?;
        let mut calls = self.0.borrow_mut();
        let count = calls.entry(key.clone()).or_default();
        *count += 1;
        Some((key, *count - 1))
    }
}

/// Writes a table with its keys in order, because Lua's order differs between runs.
fn write_table(table: &Table, depth: usize, key: &mut Key) -> Option<()> {
    let mut entries = Vec::new();
    for pair in table.pairs::<Value, Value>() {
        let (name, value) = pair.ok()?;
        let mut entry = Vec::new();
        write_value(&name, depth, &mut entry)?;
        write_value(&value, depth, &mut entry)?;
        entries.push(entry);
    }
    entries.sort();
    key.extend_from_slice(format!("{{{}", entries.len()).as_bytes());
    entries.iter().for_each(|entry| key.extend_from_slice(entry));
    key.push(b'}');
    Some(())
}

/// Writes a value so that different values have different bytes. A backend lives as long as the stored values, so its
/// address identifies it.
fn write_value(value: &Value, depth: usize, key: &mut Key) -> Option<()> {
    match value {
        Value::Boolean(flag) => key.extend_from_slice(if *flag { b"t" } else { b"f" }),
        Value::Integer(number) => key.extend_from_slice(format!("i{number};").as_bytes()),
        Value::Number(number) => key.extend_from_slice(format!("n{};", number.to_bits()).as_bytes()),
        Value::String(text) => {
            key.extend_from_slice(format!("s{}:", text.as_bytes().len()).as_bytes());
            key.extend_from_slice(&text.as_bytes());
        }
        Value::Table(table) => write_table(table, depth.checked_sub(1)?, key)?,
        Value::UserData(data) => {
            let handle = data.borrow::<BackendHandle>().ok()?;
            key.extend_from_slice(format!("b{:p};", Arc::as_ptr(&handle.0)).as_bytes());
        }
        _ => return None,
    }
    Some(())
}
