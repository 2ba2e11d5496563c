//! Parses tool calls in a model's text, in the form of Hermes and Qwen templates:
//! `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`.
//!
//! Invariant: `buffer` holds the text that can still belong to a tool call, and `blank` the white space after a call.
//! All earlier text was emitted. The parts are the same however the text is cut into pieces.

use serde_json::Value;

const OPEN_TAG: &str = "<tool_call>";
const CLOSE_TAG: &str = "</tool_call>";

/// A part of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Part {
    Text(String),
    /// A tool call. The arguments are JSON text, as in OpenAI's API.
    Call {
        name: String,
        arguments: String,
    },
}

/// Splits a stream of text into plain text and tool calls.
#[derive(Debug, Default)]
pub(crate) struct ToolCallParser {
    buffer: String,
    /// Tool calls so far.
    call_count: usize,
    /// White space after a call, which is dropped before the next call and at the end: it belongs to the template, not
    /// to the message. `None`: other text has followed the last call.
    blank: Option<String>,
}

impl ToolCallParser {
    /// Number of tool calls so far.
    pub(crate) fn call_count(&self) -> usize {
        self.call_count
    }

    /// Adds text and returns the parts that later text cannot change.
    pub(crate) fn push(&mut self, text: &str) -> Vec<Part> {
        self.buffer.push_str(text);
        let mut parts = Vec::new();
        while let Some(start) = self.buffer.find(OPEN_TAG) {
            let Some(length) = self.buffer[start..].find(CLOSE_TAG) else {
                self.emit_text(start, &mut parts);
                return parts;
            };
            self.emit_text(start, &mut parts);
            let whole: String = self.buffer.drain(..length + CLOSE_TAG.len()).collect();
            match parse_call(&whole[OPEN_TAG.len()..length]) {
                Some(call) => {
                    self.call_count += 1;
                    self.blank = Some(String::new());
                    parts.push(call);
                }
                None => parts.push(Part::Text(self.blank.take().unwrap_or_default() + &whole)),
            }
        }
        let certain = self.buffer.len() - partial_tag_bytes(&self.buffer);
        self.emit_text(certain, &mut parts);
        parts
    }

    /// Ends the text: the buffered rest is plain text.
    pub(crate) fn finish(&mut self) -> Vec<Part> {
        let mut parts = Vec::new();
        self.emit_text(self.buffer.len(), &mut parts);
        parts
    }

    fn emit_text(&mut self, length: usize, parts: &mut Vec<Part>) {
        let text: String = self.buffer.drain(..length).collect();
        let text = match self.blank.take() {
            Some(blank) if text.trim().is_empty() => {
                self.blank = Some(blank + &text);
                return;
            }
            Some(blank) => blank + &text,
            None => text,
        };
        if !text.is_empty() {
            parts.push(Part::Text(text));
        }
    }
}

/// The parts of a whole text that arrives in pieces. Adjacent texts are joined.
pub(crate) fn joined_parts<'a>(pieces: impl Iterator<Item = &'a str>) -> Vec<Part> {
    let mut parser = ToolCallParser::default();
    let mut parts: Vec<Part> = pieces.flat_map(|piece| parser.push(piece)).collect();
    parts.extend(parser.finish());
    parts.into_iter().fold(Vec::new(), |mut joined, part| {
        match (joined.last_mut(), part) {
            (Some(Part::Text(before)), Part::Text(text)) => before.push_str(&text),
            (_, part) => joined.push(part),
        }
        joined
    })
}

/// Number of bytes at the end of `text` that can begin a tool call.
fn partial_tag_bytes(text: &str) -> usize {
    (1..OPEN_TAG.len()).rev().find(|length| text.ends_with(&OPEN_TAG[..*length])).unwrap_or(0)
}

fn parse_call(json: &str) -> Option<Part> {
    let value: Value = serde_json::from_str(json.trim()).ok()?;
    let name = value.get("name")?.as_str()?.to_owned();
    let arguments = match value.get("arguments")? {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    Some(Part::Call { name, arguments })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(pieces: &[&str]) -> Vec<Part> {
        joined_parts(pieces.iter().copied())
    }

    #[test]
    fn parser_finds_a_call_at_every_cut() {
        let text = "Let me see. <tool_call>\n{\"name\": \"f\", \"arguments\": {\"x\": 1}}\n</tool_call>\n";
        let expected = [
            Part::Text("Let me see. ".to_owned()),
            Part::Call { name: "f".to_owned(), arguments: "{\"x\":1}".to_owned() },
        ];
        for cut in 0..=text.len() {
            assert_eq!(split(&[&text[..cut], &text[cut..]]), expected, "cut at {cut}");
        }
    }

    #[test]
    fn parser_keeps_incomplete_calls_as_text() {
        for text in ["a <tool", "<tool_call>{broken}</tool_call>", "<tool_call>{\"name\": \"f\"", "1 < 2"] {
            assert_eq!(split(&[text]), [Part::Text(text.to_owned())]);
        }
    }

    #[test]
    fn parser_drops_white_space_between_calls() {
        let one = "<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>";
        let parts = split(&[one, "\n", one, "\n"]);
        assert_eq!(parts.len(), 2);
    }

    #[test]
    fn parser_keeps_white_space_within_text_after_a_call() {
        let call = "<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>";
        let parts = split(&[call, "\n", "two", " ", "words"]);
        assert_eq!(parts[1..], [Part::Text("\ntwo words".to_owned())]);
    }
}
