//! Collects the tool calls that text servers send beside the text. Writes these calls as text, in the form
//! that the endpoint parses.

use serde_json::{Value, json};

/// The bookkeeping of one call in bytes: a server can send calls without text.
const CALL_BYTES: usize = 64;

/// The calls of one answer: name and arguments, by index.
#[derive(Default)]
pub(crate) struct ToolCalls {
    calls: Vec<(String, String)>,
    bytes: usize,
}

impl ToolCalls {
    /// Adds a call, or a part of one.
    pub(crate) fn add(&mut self, call: &Value) {
        let index = call["index"].as_u64().and_then(|index| usize::try_from(index).ok());
        let index = index.unwrap_or(self.calls.len()).min(self.calls.len());
        if index == self.calls.len() {
            self.calls.push((String::new(), String::new()));
            self.bytes += CALL_BYTES;
        }
        let (name, arguments) = &mut self.calls[index];
        let before = name.len() + arguments.len();
        name.push_str(call["function"]["name"].as_str().unwrap_or_default());
        match &call["function"]["arguments"] {
            Value::String(part) => arguments.push_str(part),
            Value::Null => {}
            whole => arguments.push_str(&whole.to_string()),
        }
        self.bytes += name.len() + arguments.len() - before;
    }

    /// The memory of all calls in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// Removes all calls and returns them as text; `None` without calls.
    pub(crate) fn take(&mut self) -> Option<String> {
        if self.calls.is_empty() {
            return None;
        }
        let write = |(name, arguments): (String, String)| {
            let arguments: Value = serde_json::from_str(&arguments).unwrap_or_else(|_| json!({}));
            format!("<tool_call>\n{}\n</tool_call>", json!({"name": name, "arguments": arguments}))
        };
        Some(std::mem::take(&mut self.calls).into_iter().map(write).collect::<Vec<_>>().join("\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tool_calls_join_their_parts() {
        let mut calls = ToolCalls::default();
        calls.add(&json!({"index": 0, "function": {"name": "f", "arguments": "{\"a\""}}));
        calls.add(&json!({"index": 0, "function": {"arguments": ": 1}"}}));
        calls.add(&json!({"function": {"name": "g", "arguments": {"b": 2}}}));
        let text = calls.take().unwrap();
        assert!(text.contains(r#"{"name":"f","arguments":{"a":1}}"#), "{text}");
        assert!(text.contains(r#"{"name":"g","arguments":{"b":2}}"#), "{text}");
        assert!(calls.is_empty());
    }
}
