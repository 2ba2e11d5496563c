//! Tool calls, which text servers send beside the text: collected, and written out in the form that
//! the endpoint reads from every model.

use serde_json::{Value, json};

/// The calls of one answer, by their place.
#[derive(Default)]
pub(crate) struct Calls(Vec<(String, String)>);

impl Calls {
    /// Adds a whole call, or a part of one.
    pub(crate) fn add(&mut self, call: &Value) {
        let place = call["index"].as_u64().and_then(|index| usize::try_from(index).ok());
        let place = place.unwrap_or(self.0.len()).min(self.0.len());
        if place == self.0.len() {
            self.0.push((String::new(), String::new()));
        }
        let (name, arguments) = &mut self.0[place];
        name.push_str(call["function"]["name"].as_str().unwrap_or_default());
        match &call["function"]["arguments"] {
            Value::String(part) => arguments.push_str(part),
            Value::Null => {}
            whole => arguments.push_str(&whole.to_string()),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All calls as text; nothing is left.
    pub(crate) fn take(&mut self) -> Option<String> {
        if self.0.is_empty() {
            return None;
        }
        let written = |(name, arguments): (String, String)| {
            let arguments: Value = serde_json::from_str(&arguments).unwrap_or_else(|_| json!({}));
            format!("<tool_call>\n{}\n</tool_call>", json!({"name": name, "arguments": arguments}))
        };
        Some(std::mem::take(&mut self.0).into_iter().map(written).collect::<Vec<_>>().join("\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_calls_are_joined_and_whole_ones_taken_as_they_are() {
        let mut calls = Calls::default();
        calls.add(&json!({"index": 0, "function": {"name": "f", "arguments": "{\"a\""}}));
        calls.add(&json!({"index": 0, "function": {"arguments": ": 1}"}}));
        calls.add(&json!({"function": {"name": "g", "arguments": {"b": 2}}}));
        let text = calls.take().unwrap();
        assert!(text.contains(r#"{"name":"f","arguments":{"a":1}}"#), "{text}");
        assert!(text.contains(r#"{"name":"g","arguments":{"b":2}}"#), "{text}");
        assert!(calls.is_empty());
    }
}
