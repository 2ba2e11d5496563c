//! An answer as a text server streams it.

use serde_json::Value;
use tightwad_core::{BackendError, Finish, Request, TextLogprobs, Usage};
use tightwad_net::Lines;

use crate::client::Client;
use crate::dialect::Dialect;
use crate::tools::Calls;

/// A piece of the answer.
pub(crate) struct Piece {
    pub text: String,
    pub logprobs: Vec<TextLogprobs>,
}

/// The stream of one answer.
pub(crate) struct Events {
    lines: Lines,
    dialect: Dialect,
    server: String,
    calls: Calls,
    finish: Option<Finish>,
    usage: Usage,
    pieces: u32,
    over: bool,
}

impl Events {
    pub(crate) async fn begin(client: &Client, request: &Request) -> Result<Self, BackendError> {
        let response = client.begin(request).await?;
        Ok(Self {
            lines: Lines::new(response),
            dialect: client.dialect,
            server: client.model.clone(),
            calls: Calls::default(),
            finish: None,
            usage: Usage::default(),
            pieces: 0,
            over: false,
        })
    }

    /// The next piece; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Piece>, BackendError> {
        while !self.over {
            let line = self.lines.next().await;
            let line = line.map_err(|error| BackendError::failed(&self.server, error))?;
            let Some(line) = line else { break };
            let Some(event) = self.event(&line)? else { continue };
            let piece = match self.dialect {
                Dialect::Ollama => self.ollama(&event),
                Dialect::LlamaServer | Dialect::OpenAi => self.openai(&event),
            };
            if !piece.text.is_empty() || !piece.logprobs.is_empty() {
                self.pieces += 1;
                return Ok(Some(piece));
            }
        }
        if self.finish.is_none() && self.calls.is_empty() {
            return Err(BackendError::failed(&self.server, "the answer broke off"));
        }
        self.over = true;
        Ok(self.calls.take().map(|text| Piece { text, logprobs: Vec::new() }))
    }

    /// Why the answer ended.
    pub(crate) fn finish(&self) -> Finish {
        self.finish.unwrap_or(Finish::Stop)
    }

    /// Tokens, as the server counted them; else its pieces.
    pub(crate) fn usage(&self) -> Usage {
        let counted = self.usage.completion_tokens;
        Usage { completion_tokens: if counted > 0 { counted } else { self.pieces }, ..self.usage }
    }

    /// The JSON of a line; `None` for lines that carry none.
    fn event(&mut self, line: &[u8]) -> Result<Option<Value>, BackendError> {
        let data = match self.dialect {
            Dialect::Ollama => line,
            Dialect::LlamaServer | Dialect::OpenAi => {
                let Some(data) = line.strip_prefix(b"data:") else { return Ok(None) };
                data.trim_ascii_start()
            }
        };
        if data == b"[DONE]" {
            self.over = true;
            return Ok(None);
        }
        if data.is_empty() {
            return Ok(None);
        }
        let event: Value = serde_json::from_slice(data)
            .map_err(|error| BackendError::failed(&self.server, format!("an event is not JSON: {error}")))?;
        let told = event["error"]["message"].as_str().or(event["error"].as_str());
        match told {
            Some(message) => Err(BackendError::failed(&self.server, message)),
            None => Ok(Some(event)),
        }
    }

    fn openai(&mut self, event: &Value) -> Piece {
        if let Some(usage) = event.get("usage").filter(|usage| usage.is_object()) {
            self.usage = Usage {
                prompt_tokens: count(&usage["prompt_tokens"]),
                completion_tokens: count(&usage["completion_tokens"]),
                cached_tokens: count(&usage["prompt_tokens_details"]["cached_tokens"]),
            };
        }
        let choice = &event["choices"][0];
        self.note_finish(choice["finish_reason"].as_str());
        for call in choice["delta"]["tool_calls"].as_array().into_iter().flatten() {
            self.calls.add(call);
        }
        let text = choice["delta"]["content"].as_str().or(choice["text"].as_str()).unwrap_or_default();
        let entries = choice["logprobs"]["content"].as_array().into_iter().flatten();
        Piece { text: text.to_owned(), logprobs: entries.map(logprobs).collect() }
    }

    fn ollama(&mut self, event: &Value) -> Piece {
        if event["done"] == true {
            self.usage.prompt_tokens = count(&event["prompt_eval_count"]);
            self.usage.completion_tokens = count(&event["eval_count"]);
            self.note_finish(event["done_reason"].as_str().or(Some("stop")));
            self.over = true;
        }
        for call in event["message"]["tool_calls"].as_array().into_iter().flatten() {
            self.calls.add(call);
        }
        let text = event["message"]["content"].as_str().or(event["response"].as_str()).unwrap_or_default();
        Piece { text: text.to_owned(), logprobs: Vec::new() }
    }

    fn note_finish(&mut self, reason: Option<&str>) {
        if let Some(reason) = reason {
            self.finish = Some(if reason == "length" { Finish::Length } else { Finish::Stop });
        }
    }
}

fn count(value: &Value) -> u32 {
    value.as_u64().and_then(|count| u32::try_from(count).ok()).unwrap_or(0)
}

fn logprobs(entry: &Value) -> TextLogprobs {
    let bytes = |entry: &Value| match entry["bytes"].as_array() {
        Some(bytes) => bytes.iter().filter_map(|byte| u8::try_from(byte.as_u64()?).ok()).collect(),
        None => entry["token"].as_str().unwrap_or_default().as_bytes().to_vec(),
    };
    let value = |entry: &Value| entry["logprob"].as_f64().unwrap_or(f64::NEG_INFINITY) as f32;
    let top = entry["top_logprobs"].as_array().into_iter().flatten();
    TextLogprobs {
        bytes: bytes(entry),
        logprob: value(entry),
        top: top.map(|other| (bytes(other), value(other))).collect(),
    }
}
