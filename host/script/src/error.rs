//! Errors of scripts, with file and line.

use tightwad_core::printable;

use crate::limits::memory_message;

/// The host cannot use a script. The message starts with file and line if they are known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ScriptError(String);

impl ScriptError {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl From<mlua::Error> for ScriptError {
    fn from(error: mlua::Error) -> Self {
        Self(message(&error))
    }
}

/// The maximum length of a message, in bytes.
const MAX_MESSAGE_BYTES: usize = 2000;
/// The maximum length of a message with its stack traceback, in bytes.
const MAX_TRACEBACK_BYTES: usize = 8000;
/// Lua's text for a host function that waits inside a C function.
const YIELD_IN_C: &str = "attempt to yield across a C-call boundary";
/// The chunks of the host and of mlua, which are not the user's code.
const HOST_CHUNKS: [&str; 4] = ["[", "sandbox:", "tightwad:", "__mlua"];

/// The message of `error` for people: with its place in the script, and without Lua's stack traceback.
pub(crate) fn message(error: &mlua::Error) -> String {
    printable_lines(&full_message(error), MAX_MESSAGE_BYTES)
}

/// The complete text of `error` with Lua's stack traceback, for the log.
pub(crate) fn traceback(error: &mlua::Error) -> String {
    printable_lines(&error.to_string(), MAX_TRACEBACK_BYTES)
}

/// `text` without control characters but line breaks, cut after `max_bytes`.
fn printable_lines(text: &str, max_bytes: usize) -> String {
    let mut lines = String::new();
    for line in text.lines() {
        if lines.len() >= max_bytes {
            break;
        }
        let separator = if lines.is_empty() { "" } else { "\n" };
        lines.push_str(separator);
        lines.push_str(&printable(line, max_bytes - lines.len()));
    }
    lines
}

fn full_message(error: &mlua::Error) -> String {
    match error {
        mlua::Error::CallbackError { traceback, cause } => match (place(traceback), cause.as_ref()) {
            (Some(place), mlua::Error::RuntimeError(text)) if !text.contains(TRACEBACK) => {
                format!("{place}: {}", full_message(cause))
            }
            _ => full_message(cause),
        },
        mlua::Error::WithContext { context, cause } => format!("{context}: {}", full_message(cause)),
        mlua::Error::BadArgument { cause, .. } => full_message(cause),
        mlua::Error::SyntaxError { message, .. } | mlua::Error::RuntimeError(message) => {
            raised_message(message.split(TRACEBACK).next().unwrap_or_default())
        }
        mlua::Error::MemoryError(_) => memory_message(),
        mlua::Error::ExternalError(error) => error.to_string(),
        other => other.to_string(),
    }
}

/// The beginning of a stack traceback in a message.
const TRACEBACK: &str = "\nstack traceback:";

/// The innermost place of the user's code in a traceback, such as `s.lua:3`.
fn place(traceback: &str) -> Option<&str> {
    let lines = traceback.lines().map(str::trim_start);
    let mut user_lines = lines.filter(|line| HOST_CHUNKS.iter().all(|chunk| !line.starts_with(chunk)));
    user_lines.find_map(|line| line.split_once(": in ").map(|(place, _)| place))
}

/// The message for the text of an error value. Lua shows a table as its address, which says nothing.
fn raised_message(text: &str) -> String {
    let advice = "Raise a string, as in error(\"no model is free\")";
    if let Some((kind, address)) = text.rsplit_once(": 0x")
        && !address.is_empty()
        && address.bytes().all(|byte| byte.is_ascii_hexdigit())
    {
        let kind = if ["table", "function", "thread"].contains(&kind) { kind } else { "value" };
        return format!("the script raised a {kind} as its error. {advice}");
    }
    match text {
        "nil" => format!("the script raised nil as its error. {advice}"),
        _ if text.ends_with(YIELD_IN_C) => text.replace(
            YIELD_IN_C,
            "a function that waits for the host was called inside a function of Lua's library, such as gsub or sort. \
             Call it outside",
        ),
        _ => text.to_owned(),
    }
}
