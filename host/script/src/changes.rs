//! The changes that a script makes to a request before a backend receives it.

use mlua::{Lua, Table, Value};
use tightwad_core::{ChatOptions, Message, Prompt, Request, Sampling, SamplingSpec};

use crate::json::to_json;
use crate::keys::{Fields, Schema};
use crate::table_error::TableError;

/// The fields of a request that a script can change.
pub(crate) const CHANGES: Schema = Schema {
    name: "the changes of a request",
    keys: &["prompt", "messages", "max_tokens", "temperature", "seed", "stop"],
};

/// The maximum number of stop texts: the limit of requests from clients.
const MAX_STOP_STRINGS: usize = 16;

/// A copy of `request` with the script's `changes`.
pub(crate) fn changed_request(
    lua: &Lua,
    request: &Request,
    changes: Option<Table>,
) -> Result<Request, TableError> {
    let mut request = request.clone();
    let Some(changes) = changes else { return Ok(request) };
    let fields = Fields::new(lua, &changes, &CHANGES)?;
    if let Some(text) = fields.text("prompt")? {
        request.prompt = Prompt::Text(text.into());
    }
    if let Some(value) = fields.optional::<Value>("messages", "a list of messages")? {
        request.prompt = Prompt::Chat(messages(lua, &value)?.into());
        // The client wanted another message continued.
        request.chat = ChatOptions { add_generation_prompt: true, continuation: None, ..request.chat };
    }
    if let Some(max_tokens) = fields.optional::<u32>("max_tokens", "a whole number")? {
        request.max_tokens = Some(max_tokens.max(1));
    }
    if let Some(stop) = fields.texts("stop")? {
        request.stop = stop.into_iter().filter(|stop| !stop.is_empty()).collect();
        if request.stop.len() > MAX_STOP_STRINGS {
            return Err(TableError::Refused(format!(
                "'stop' takes up to {MAX_STOP_STRINGS} strings, not {}",
                request.stop.len()
            )));
        }
    }
    let temperature = fields.optional::<f32>("temperature", "a number")?;
    let seed = fields.optional::<i64>("seed", "a whole number")?;
    let spec = SamplingSpec {
        temperature: temperature.unwrap_or(request.sampling.temperature),
        seed: seed.map_or(request.sampling.seed, i64::cast_unsigned),
        seed_is_random: seed.is_none() && request.sampling.seed_is_random,
        ..(*request.sampling).clone()
    };
    request.sampling = Sampling::new(spec).map_err(|error| error.to_string())?;
    Ok(request)
}

/// Reads a list of messages. A chat template would fail on another value with a less clear error.
fn messages(lua: &Lua, value: &Value) -> Result<Vec<Message>, TableError> {
    let refused = |reason: String| TableError::Refused(format!("'messages' {reason}"));
    let list = match to_json(lua, value).map_err(|error| refused(error.to_string()))? {
        serde_json::Value::Array(list) if !list.is_empty() => list,
        _ => return Err(refused("must be a list of tables with role and content".to_owned())),
    };
    let read = |(index, message): (usize, serde_json::Value)| {
        let position = index + 1;
        let serde_json::Value::Object(message) = message else {
            return Err(refused(format!("[{position}] must be a table with role and content")));
        };
        if !message.get("role").is_some_and(serde_json::Value::is_string) {
            return Err(refused(format!("[{position}].role must be a string, such as \"user\"")));
        }
        let content = message.get("content");
        if content.is_some_and(|content| !(content.is_string() || content.is_array() || content.is_null())) {
            return Err(refused(format!("[{position}].content must be a string or a list of parts")));
        }
        Ok(Message(message))
    };
    list.into_iter().enumerate().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Applies the changes that the Lua expression `source` makes to a request.
    fn change(source: &str) -> Result<Request, String> {
        let lua = Lua::new();
        let changes: Table = lua.load(source).eval().unwrap();
        changed_request(&lua, &Request::default(), Some(changes)).map_err(|error| error.to_string())
    }

    #[test]
    fn text_cut_by_bytes_becomes_replacement_characters() {
        let request = change(r#"{ prompt = ("Grüße"):sub(1, 3), stop = { ("é"):sub(1, 1), "" } }"#).unwrap();
        assert_eq!(request.prompt.text(), "Gr\u{fffd}");
        assert_eq!(*request.stop, ["\u{fffd}".to_owned()]);
        let request = change(r#"{ messages = { { role = "user", content = ("é"):sub(1, 1) } } }"#).unwrap();
        assert_eq!(request.prompt.text(), "\u{fffd}");
    }

    #[test]
    fn wrong_change_is_refused_with_its_place() {
        for (source, expected) in [
            (
                "{ messages = 'hi' }",
                "'messages' in the changes of a request must be a list of messages, not the string 'hi'",
            ),
            ("{ messages = {} }", "'messages' must be a list of tables with role and content"),
            ("{ messages = { 'hi' } }", "'messages' [1] must be a table with role and content"),
            (
                "{ messages = { { content = 'hi' } } }",
                "'messages' [1].role must be a string, such as \"user\"",
            ),
            (
                "{ messages = { { role = 'user', content = 5 } } }",
                "'messages' [1].content must be a string or a list of parts",
            ),
            ("{ messages = { { role = 'user', content = print } } }", "'messages' [1].content is a function"),
            (
                "{ messages = { { role = 'user' }, nil, { role = 'user' } } }",
                "'messages' has no value at position 2",
            ),
        ] {
            let error = change(source).unwrap_err();
            assert!(error.starts_with(expected), "{source}: {error}");
        }
    }

    #[test]
    fn option_out_of_range_is_refused() {
        for (source, expected) in [
            ("{ temperature = 0/0 }", "temperature must be between 0 and 100, got NaN"),
            ("{ temperature = math.huge }", "temperature must be between 0 and 100, got inf"),
            (
                "{ max_tokens = -1 }",
                "'max_tokens' in the changes of a request must be a whole number, not the number -1",
            ),
            (
                "{ max_tokens = 1e300 }",
                "'max_tokens' in the changes of a request must be a whole number, not the number 1e300",
            ),
            (
                "{ stop = { {} } }",
                "'stop' in the changes of a request must be a list of strings, not a list with a table",
            ),
            (
                "{ stop = (function() local t = {} for i = 1, 17 do t[i] = 'x' end return t end)() }",
                "'stop' takes up to 16 strings, not 17",
            ),
        ] {
            let error = change(source).unwrap_err();
            assert!(error.starts_with(expected), "{source}: {error}");
        }
    }
}
