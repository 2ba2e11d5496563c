//! A conversation, as chat templates expect it.

use serde_json::{Map, Value};
use tightwad_core::Message;
use tightwad_net::http::ApiError;

const ROLES: [&str; 5] = ["system", "developer", "user", "assistant", "tool"];

/// Checks the messages and brings them into the form that templates know.
pub(crate) fn messages(given: Vec<Map<String, Value>>) -> Result<Vec<Message>, ApiError> {
    if given.is_empty() {
        return Err(ApiError::invalid(Some("messages"), "'messages' is empty"));
    }
    given.into_iter().enumerate().map(|(index, message)| one(index, message)).collect()
}

fn one(index: usize, mut message: Map<String, Value>) -> Result<Message, ApiError> {
    let wrong = |field: &str, message: String| {
        let field = format!("messages[{index}].{field}");
        Err(ApiError::invalid(Some(&field), format!("'{field}' {message}")))
    };
    let role = match message.get("role").and_then(Value::as_str) {
        Some("developer") => "system".to_owned(),
        Some(role) if ROLES.contains(&role) => role.to_owned(),
        other => {
            let given = other.unwrap_or("missing");
            return wrong("role", format!("is one of {}, not {given}", ROLES.join(", ")));
        }
    };
    let content = match message.remove("content") {
        None | Some(Value::Null) if role == "assistant" => String::new(),
        Some(Value::String(text)) => text,
        Some(Value::Array(parts)) => match joined(&parts) {
            Ok(text) => text,
            Err(error) => return wrong("content", error.to_string()),
        },
        other => {
            return wrong(
                "content",
                format!("is a string or an array of parts, not {}", kind(other.as_ref())),
            );
        }
    };
    message.insert("role".to_owned(), Value::String(role));
    message.insert("content".to_owned(), Value::String(content));
    if let Some(Value::Array(calls)) = message.get_mut("tool_calls") {
        calls.iter_mut().for_each(open_arguments);
    }
    Ok(Message(message))
}

/// A content part is not text.
#[derive(Debug, thiserror::Error)]
#[error("has a part of the kind {kind}: only text is understood")]
struct UnknownPart {
    kind: String,
}

/// The text of content parts.
fn joined(parts: &[Value]) -> Result<String, UnknownPart> {
    let text = |part: &Value| match (part["type"].as_str(), part["text"].as_str()) {
        (Some("text"), Some(text)) => Ok(text.to_owned()),
        (kind, _) => Err(UnknownPart { kind: kind.unwrap_or("unknown").to_owned() }),
    };
    parts.iter().map(text).collect()
}

/// OpenAI writes a call's arguments as a string of JSON, templates expect the object.
fn open_arguments(call: &mut Value) {
    if let Some(arguments) = call.pointer_mut("/function/arguments")
        && let Some(object) = arguments.as_str().and_then(|text| serde_json::from_str(text).ok())
    {
        *arguments = object;
    }
}

fn kind(value: Option<&Value>) -> &'static str {
    match value {
        None | Some(Value::Null) => "missing",
        Some(Value::Bool(_)) => "a boolean",
        Some(Value::Number(_)) => "a number",
        Some(Value::String(_)) => "a string",
        Some(Value::Array(_)) => "an array",
        Some(Value::Object(_)) => "an object",
    }
}
