//! Tool calls in a model's text, in the form that Hermes and Qwen templates teach:
//! `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`.
//!
//! Invariant: `held` is text that may yet belong to a call; everything before it was given out.

use serde_json::Value;

const OPEN: &str = "<tool_call>";
const CLOSE: &str = "</tool_call>";

/// A part of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Part {
    Text(String),
    /// Arguments as JSON text, as OpenAI has them.
    Call {
        name: String,
        arguments: String,
    },
}

/// Splits text that comes in pieces.
#[derive(Debug, Default)]
pub(crate) struct Splitter {
    held: String,
    /// Calls so far: white space between and after them is the form's, not the model's.
    calls: usize,
}

impl Splitter {
    /// How many calls were found.
    pub(crate) fn calls(&self) -> usize {
        self.calls
    }

    /// Takes more text; gives out what is certain.
    pub(crate) fn push(&mut self, text: &str) -> Vec<Part> {
        self.held.push_str(text);
        let mut parts = Vec::new();
        while let Some(start) = self.held.find(OPEN) {
            let Some(length) = self.held[start..].find(CLOSE) else {
                self.give_text(start, &mut parts);
                return parts;
            };
            self.give_text(start, &mut parts);
            let whole: String = self.held.drain(..length + CLOSE.len()).collect();
            match call(&whole[OPEN.len()..length]) {
                Some(call) => {
                    self.calls += 1;
                    parts.push(call);
                }
                None => parts.push(Part::Text(whole)),
            }
        }
        let certain = self.held.len() - partial(&self.held);
        self.give_text(certain, &mut parts);
        parts
    }

    /// The text ends: what was held is text after all.
    pub(crate) fn finish(&mut self) -> Vec<Part> {
        let mut parts = Vec::new();
        self.give_text(self.held.len(), &mut parts);
        parts
    }

    fn give_text(&mut self, length: usize, parts: &mut Vec<Part>) {
        let text: String = self.held.drain(..length).collect();
        if !(text.is_empty() || self.calls > 0 && text.trim().is_empty()) {
            parts.push(Part::Text(text));
        }
    }
}

/// How many bytes at the end of `text` may begin a call.
fn partial(text: &str) -> usize {
    (1..OPEN.len()).rev().find(|length| text.ends_with(&OPEN[..*length])).unwrap_or(0)
}

fn call(json: &str) -> Option<Part> {
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
        let mut splitter = Splitter::default();
        let mut parts: Vec<Part> = pieces.iter().flat_map(|piece| splitter.push(piece)).collect();
        parts.extend(splitter.finish());
        // Neighbouring texts are one.
        parts.into_iter().fold(Vec::new(), |mut joined, part| {
            match (joined.last_mut(), part) {
                (Some(Part::Text(before)), Part::Text(text)) => before.push_str(&text),
                (_, part) => joined.push(part),
            }
            joined
        })
    }

    #[test]
    fn a_call_is_found_wherever_the_text_is_cut() {
        let text = "Let me see. <tool_call>\n{\"name\": \"f\", \"arguments\": {\"x\": 1}}\n</tool_call>\n";
        let wanted = [
            Part::Text("Let me see. ".to_owned()),
            Part::Call { name: "f".to_owned(), arguments: "{\"x\":1}".to_owned() },
        ];
        for cut in 0..=text.len() {
            assert_eq!(split(&[&text[..cut], &text[cut..]]), wanted, "cut at {cut}");
        }
    }

    #[test]
    fn text_that_only_looks_like_a_call_stays_text() {
        for text in ["a <tool", "<tool_call>{broken}</tool_call>", "<tool_call>{\"name\": \"f\"", "1 < 2"] {
            assert_eq!(split(&[text]), [Part::Text(text.to_owned())]);
        }
    }

    #[test]
    fn several_calls_in_a_row_have_no_text_between() {
        let one = "<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>";
        let parts = split(&[one, "\n", one]);
        assert_eq!(parts.len(), 2);
    }
}
