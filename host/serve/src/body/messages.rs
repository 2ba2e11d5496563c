//! Converts messages to the form that chat templates expect.

use serde_json::{Map, Value};
use tightwad_core::{JsonSize, Message, TooMuchJson};
use tightwad_net::http::ApiError;

const ROLES: [&str; 5] = ["system", "developer", "user", "assistant", "tool"];

/// Checks the messages and converts them for chat templates. Adds the JSON in strings to `size`.
pub(crate) fn messages(
    objects: Vec<Map<String, Value>>,
    size: &mut JsonSize,
) -> Result<Vec<Message>, ApiError> {
    if objects.is_empty() {
        return Err(ApiError::invalid(Some("messages"), "'messages' is empty"));
    }
    objects.into_iter().enumerate().map(|(index, message)| convert(index, message, size)).collect()
}

fn convert(index: usize, mut message: Map<String, Value>, size: &mut JsonSize) -> Result<Message, ApiError> {
    let invalid = |field: &str, message: String| {
        let field = format!("messages[{index}].{field}");
        Err(ApiError::invalid(Some(&field), format!("'{field}' {message}")))
    };
    let role = match message.get("role").and_then(Value::as_str) {
        Some("developer") => "system".to_owned(),
        // OpenAI's older name.
        Some("function") => "tool".to_owned(),
        Some(role) if ROLES.contains(&role) => role.to_owned(),
        other => {
            let role = other.unwrap_or("missing");
            return invalid("role", format!("is one of {}, not {role}", ROLES.join(", ")));
        }
    };
    let content = match message.remove("content") {
        None | Some(Value::Null) if ["assistant", "tool"].contains(&role.as_str()) => String::new(),
        Some(Value::String(text)) => text,
        Some(Value::Array(parts)) => match join_text(&parts) {
            Ok(text) => text,
            Err(error) => return invalid("content", error.to_string()),
        },
        other => {
            return invalid(
                "content",
                format!("is a string or an array of parts, not {}", json_type(other.as_ref())),
            );
        }
    };
    message.insert("role".to_owned(), Value::String(role));
    message.insert("content".to_owned(), Value::String(content));
    if let Some(Value::Array(calls)) = message.get_mut("tool_calls")
        && let Err(error) = calls.iter_mut().try_for_each(|call| parse_arguments(call, size))
    {
        return invalid("tool_calls", format!("cannot be parsed: {error}"));
    }
    Ok(Message(message))
}

/// A content part is not text.
#[derive(Debug, thiserror::Error)]
#[error("has a part of the type {kind}: only text is supported")]
struct UnknownPart {
    kind: String,
}

/// Joins the text of content parts.
fn join_text(parts: &[Value]) -> Result<String, UnknownPart> {
    let text = |part: &Value| match (part["type"].as_str(), part["text"].as_str(), part["refusal"].as_str()) {
        (Some("text"), Some(text), _) | (Some("refusal"), _, Some(text)) => Ok(text.to_owned()),
        (kind, _, _) => Err(UnknownPart { kind: kind.unwrap_or("unknown").to_owned() }),
    };
    parts.iter().map(text).collect()
}

/// Parses the arguments of a tool call: OpenAI's API has them as a JSON string, templates expect an object.
fn parse_arguments(call: &mut Value, size: &mut JsonSize) -> Result<(), TooMuchJson> {
    if let Some(arguments) = call.pointer_mut("/function/arguments")
        && let Some(text) = arguments.as_str()
    {
        size.add(text.as_bytes())?;
        if let Ok(object) = serde_json::from_str(text) {
            *arguments = object;
        }
    }
    Ok(())
}

fn json_type(value: Option<&Value>) -> &'static str {
    match value {
        None | Some(Value::Null) => "missing",
        Some(Value::Bool(_)) => "a boolean",
        Some(Value::Number(_)) => "a number",
        Some(Value::String(_)) => "a string",
        Some(Value::Array(_)) => "an array",
        Some(Value::Object(_)) => "an object",
    }
}
