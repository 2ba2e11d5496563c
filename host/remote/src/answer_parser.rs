//! Parses the lines of a text server's streamed answer.
//!
//! Invariant: the text and the tool calls of one answer have at most [`MAX_TEXT_BYTES`] bytes.

use serde_json::Value;
use tightwad_core::{FinishReason, TextLogprobs, Usage};

use crate::dialect::Dialect;
use crate::tools::ToolCalls;

/// The maximum length of the text and the tool calls of one answer, in bytes.
const MAX_TEXT_BYTES: usize = 16 << 20;
/// The largest count of tokens that the host believes. No model has such a context.
const MAX_TOKEN_COUNT: u64 = 1 << 28;

/// A piece of the answer. The last piece can hold the tool calls as text.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TextPiece {
    pub text: String,
    pub logprobs: Vec<TextLogprobs>,
}

/// A line that ends the answer with an error.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LineRefusal {
    /// The line is not JSON.
    #[error("an event is not JSON: {0}")]
    NotJson(serde_json::Error),
    /// The server reports an error, in its own words.
    #[error("{0}")]
    Server(String),
    /// The answer is too long.
    #[error("the answer has more than {} MiB", MAX_TEXT_BYTES >> 20)]
    TooLong,
}

/// The state of one answer.
pub(crate) struct AnswerParser {
    dialect: Dialect,
    /// The number of alternatives per log-probability; `None`: the request asks for no log-probabilities.
    logprobs: Option<u8>,
    calls: ToolCalls,
    finish_reason: Option<FinishReason>,
    usage: Usage,
    pieces: u32,
    text_bytes: usize,
    ended: bool,
}

impl AnswerParser {
    pub(crate) fn new(dialect: Dialect, logprobs: Option<u8>) -> Self {
        Self {
            dialect,
            logprobs,
            calls: ToolCalls::default(),
            finish_reason: None,
            usage: Usage::default(),
            pieces: 0,
            text_bytes: 0,
            ended: false,
        }
    }

    /// Parses a line. `None`: the line has no event.
    pub(crate) fn parse_line(&mut self, line: &[u8]) -> Result<Option<TextPiece>, LineRefusal> {
        let Some(event) = self.event(line)? else { return Ok(None) };
        let piece = match self.dialect {
            Dialect::Ollama => self.ollama(&event),
            Dialect::LlamaServer | Dialect::OpenAi => self.openai(&event),
        };
        self.text_bytes += piece.text.len();
        if self.text_bytes + self.calls.bytes() > MAX_TEXT_BYTES {
            return Err(LineRefusal::TooLong);
        }
        self.pieces += u32::from(!piece.is_empty());
        Ok(Some(piece))
    }

    /// True after the line that ends the answer.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }

    /// The number of pieces with text or log-probabilities.
    pub(crate) fn pieces(&self) -> u32 {
        self.pieces
    }

    /// Ends the answer. Returns the tool calls as text. `None`: the server has not said how the answer ended.
    pub(crate) fn finish(&mut self) -> Option<Option<TextPiece>> {
        self.ended = true;
        if self.finish_reason.is_none() && self.calls.is_empty() {
            return None;
        }
        self.finish_reason.get_or_insert(FinishReason::Stop);
        Some(self.calls.take().map(|text| TextPiece { text, logprobs: Vec::new() }))
    }

    /// The reason why the answer ended.
    pub(crate) fn finish_reason(&self) -> FinishReason {
        self.finish_reason.unwrap_or(FinishReason::Stop)
    }

    /// The server's token counts. Without such counts, the pieces of text count as tokens.
    pub(crate) fn usage(&self) -> Usage {
        let counted = self.usage.completion_tokens;
        Usage { completion_tokens: if counted > 0 { counted } else { self.pieces }, ..self.usage }
    }

    /// The JSON of a line; `None` for lines without JSON.
    fn event(&mut self, line: &[u8]) -> Result<Option<Value>, LineRefusal> {
        let data = match self.dialect {
            Dialect::Ollama => line,
            Dialect::LlamaServer | Dialect::OpenAi => {
                let Some(data) = line.strip_prefix(b"data:") else { return Ok(None) };
                data.trim_ascii_start()
            }
        };
        if data == b"[DONE]" {
            self.ended = true;
            return Ok(None);
        }
        if data.is_empty() {
            return Ok(None);
        }
        let event: Value = serde_json::from_slice(data).map_err(LineRefusal::NotJson)?;
        match event["error"]["message"].as_str().or(event["error"].as_str()) {
            Some(message) => Err(LineRefusal::Server(message.to_owned())),
            None => Ok(Some(event)),
        }
    }

    fn openai(&mut self, event: &Value) -> TextPiece {
        if let Some(usage) = event.get("usage").filter(|usage| usage.is_object()) {
            self.usage = Usage {
                prompt_tokens: parse_count(&usage["prompt_tokens"]),
                completion_tokens: parse_count(&usage["completion_tokens"]),
                cached_tokens: parse_count(&usage["prompt_tokens_details"]["cached_tokens"]),
            };
        }
        let choice = &event["choices"][0];
        self.set_finish_reason(choice["finish_reason"].as_str());
        for call in choice["delta"]["tool_calls"].as_array().into_iter().flatten() {
            self.calls.add(call);
        }
        let text = choice["delta"]["content"].as_str().or(choice["text"].as_str()).unwrap_or_default();
        let entries = choice["logprobs"]["content"].as_array().into_iter().flatten();
        let logprobs = match self.logprobs {
            Some(alternatives) => entries.map(|entry| parse_logprobs(entry, alternatives)).collect(),
            None => Vec::new(),
        };
        TextPiece { text: text.to_owned(), logprobs }
    }

    fn ollama(&mut self, event: &Value) -> TextPiece {
        if event["done"] == true {
            self.usage.prompt_tokens = parse_count(&event["prompt_eval_count"]);
            self.usage.completion_tokens = parse_count(&event["eval_count"]);
            self.set_finish_reason(event["done_reason"].as_str().or(Some("stop")));
            self.ended = true;
        }
        for call in event["message"]["tool_calls"].as_array().into_iter().flatten() {
            self.calls.add(call);
        }
        let text = event["message"]["content"].as_str().or(event["response"].as_str()).unwrap_or_default();
        TextPiece { text: text.to_owned(), logprobs: Vec::new() }
    }

    fn set_finish_reason(&mut self, reason: Option<&str>) {
        if let Some(reason) = reason {
            self.finish_reason =
                Some(if reason == "length" { FinishReason::Length } else { FinishReason::Stop });
        }
    }
}

impl TextPiece {
    /// True without text and log-probabilities.
    pub(crate) fn is_empty(&self) -> bool {
        self.text.is_empty() && self.logprobs.is_empty()
    }
}

fn parse_count(value: &Value) -> u32 {
    value.as_u64().unwrap_or(0).min(MAX_TOKEN_COUNT) as u32
}

fn parse_logprobs(entry: &Value, alternatives: u8) -> TextLogprobs {
    let bytes = |entry: &Value| match entry["bytes"].as_array() {
        Some(bytes) => bytes.iter().filter_map(|byte| u8::try_from(byte.as_u64()?).ok()).collect(),
        None => entry["token"].as_str().unwrap_or_default().as_bytes().to_vec(),
    };
    let value = |entry: &Value| {
        entry["logprob"].as_f64().map_or(f32::MIN, |value| (value as f32).clamp(f32::MIN, 0.0))
    };
    let top = entry["top_logprobs"].as_array().into_iter().flatten().take(alternatives.into());
    TextLogprobs {
        bytes: bytes(entry),
        logprob: value(entry),
        top: top.map(|other| (bytes(other), value(other))).collect(),
    }
}
