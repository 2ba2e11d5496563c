//! Reads the streamed answer of a text server.

use serde_json::Value;
use tightwad_core::{BackendError, FinishReason, Request, TextLogprobs, Usage};
use tightwad_net::Lines;

use crate::client::Client;
use crate::dialect::Dialect;
use crate::tools::ToolCalls;

/// A piece of the answer.
pub(crate) struct TextPiece {
    pub text: String,
    pub logprobs: Vec<TextLogprobs>,
}

/// The stream of one answer.
pub(crate) struct AnswerStream {
    lines: Lines,
    dialect: Dialect,
    server: String,
    calls: ToolCalls,
    finish_reason: Option<FinishReason>,
    usage: Usage,
    pieces: u32,
    ended: bool,
}

impl AnswerStream {
    pub(crate) async fn start(client: &Client, request: &Request) -> Result<Self, BackendError> {
        let response = client.start_generation(request).await?;
        Ok(Self {
            lines: Lines::new(response),
            dialect: client.dialect,
            server: client.model.clone(),
            calls: ToolCalls::default(),
            finish_reason: None,
            usage: Usage::default(),
            pieces: 0,
            ended: false,
        })
    }

    /// The next piece; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<TextPiece>, BackendError> {
        while !self.ended {
            let line = self.lines.next().await;
            let line = line.map_err(|error| BackendError::failed(&self.server, error))?;
            let Some(line) = line else { break };
            let Some(event) = self.parse_line(&line)? else { continue };
            let piece = match self.dialect {
                Dialect::Ollama => self.ollama(&event),
                Dialect::LlamaServer | Dialect::OpenAi => self.openai(&event),
            };
            if !piece.text.is_empty() || !piece.logprobs.is_empty() {
                self.pieces += 1;
                return Ok(Some(piece));
            }
        }
        if self.finish_reason.is_none() && self.calls.is_empty() {
            return Err(BackendError::failed(&self.server, "the answer ended early"));
        }
        self.ended = true;
        Ok(self.calls.take().map(|text| TextPiece { text, logprobs: Vec::new() }))
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
    fn parse_line(&mut self, line: &[u8]) -> Result<Option<Value>, BackendError> {
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
        let event: Value = serde_json::from_slice(data)
            .map_err(|error| BackendError::failed(&self.server, format!("an event is not JSON: {error}")))?;
        let reason = event["error"]["message"].as_str().or(event["error"].as_str());
        match reason {
            Some(message) => Err(BackendError::failed(&self.server, message)),
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
        TextPiece { text: text.to_owned(), logprobs: entries.map(parse_logprobs).collect() }
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

fn parse_count(value: &Value) -> u32 {
    value.as_u64().and_then(|count| u32::try_from(count).ok()).unwrap_or(0)
}

fn parse_logprobs(entry: &Value) -> TextLogprobs {
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

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::fake_server::{FakeServer, streamed_response};

    /// One stream per dialect, with the text "h\u{e4}i there" in pieces.
    const OPENAI: &str = concat!(
        ": a comment\n\n",
        "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\"}}]}\n\n",
        "data: {\"choices\":[{\"delta\":{\"content\":\"h\u{e4}i\"},\"logprobs\":{\"content\":",
        "[{\"token\":\"h\u{e4}i\",\"logprob\":-0.5,\"top_logprobs\":[{\"token\":\"ho\",\"bytes\":[104,111],\"logprob\":-1}]}]}}]}\r\n\r\n",
        "data:{\"choices\":[{\"delta\":{\"content\":\" there\"}}]}\n\n",
        "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"length\"}]}\n\n",
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":5,\"prompt_tokens_details\":{\"cached_tokens\":3}}}\n\n",
        "data: [DONE]\n\n",
    );
    const LLAMA_SERVER: &str = concat!(
        "data: {\"choices\":[{\"text\":\"h\u{e4}i\",\"finish_reason\":null}]}\n\n",
        "data: {\"choices\":[{\"text\":\" there\",\"finish_reason\":null}]}\n\n",
        "data: {\"choices\":[{\"text\":\"\",\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":4,\"completion_tokens\":6}}\n\n",
        "data: [DONE]\n\n",
    );
    const OLLAMA: &str = concat!(
        "{\"message\":{\"content\":\"h\u{e4}i\"},\"done\":false}\n",
        "{\"message\":{\"content\":\" there\"},\"done\":false}\n",
        "{\"message\":{\"content\":\"\"},\"done\":true,\"done_reason\":\"stop\",\"prompt_eval_count\":9,\"eval_count\":2}\n",
    );

    type Answer = (Vec<(String, Vec<TextLogprobs>)>, FinishReason, [u32; 3]);

    /// A server that sends a text in two chunks. `sent` holds the text, the length of the first chunk, and
    /// true if the connection breaks after the first chunk.
    struct CutServer {
        server: FakeServer,
        client: Client,
        sent: Arc<Mutex<(Vec<u8>, usize, bool)>>,
    }

    impl CutServer {
        async fn start(dialect: Dialect, text: &str) -> Self {
            let sent = Arc::new(Mutex::new((text.as_bytes().to_vec(), 0, false)));
            let server_sent = sent.clone();
            let server = FakeServer::start(move || {
                let (bytes, cut, broken) = &*server_sent.lock().unwrap();
                let (first, second) = bytes.split_at(*cut);
                if *broken {
                    streamed_response(&[first], true)
                } else {
                    streamed_response(&[first, second], false)
                }
            })
            .await;
            let client = server.client(dialect).await;
            Self { server, client, sent }
        }

        async fn read(&self, cut: usize, broken: bool) -> Result<Answer, BackendError> {
            {
                let mut sent = self.sent.lock().unwrap();
                (sent.1, sent.2) = (cut, broken);
            }
            let mut events = AnswerStream::start(&self.client, &Request::default()).await?;
            let mut pieces = Vec::new();
            while let Some(piece) = events.next().await? {
                pieces.push((piece.text, piece.logprobs));
            }
            let usage = events.usage();
            let usage = [usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens];
            Ok((pieces, events.finish_reason(), usage))
        }
    }

    /// Cuts `text` at every byte. Every cut gives the same events, and a connection that breaks before
    /// `complete` bytes is an error.
    async fn check_every_cut(
        dialect: Dialect,
        text: &str,
        complete: usize,
        finish: FinishReason,
        usage: [u32; 3],
    ) {
        let server = CutServer::start(dialect, text).await;
        for cut in 0..text.len() {
            let (pieces, ended, used) = server.read(cut, false).await.unwrap();
            let texts: Vec<&str> = pieces.iter().map(|(text, _)| text.as_str()).collect();
            assert_eq!((texts, ended, used), (vec!["h\u{e4}i", " there"], finish, usage), "cut at {cut}");
            let read = server.read(cut, true).await;
            assert_eq!(read.is_ok(), cut >= complete, "broken at {cut}");
        }
        assert_eq!(server.server.requests().len(), 2 * text.len());
    }

    #[tokio::test]
    async fn openai_stream_is_the_same_at_every_cut() {
        let complete = OPENAI.find("[DONE]\n").unwrap() + "[DONE]\n".len();
        check_every_cut(Dialect::OpenAi, OPENAI, complete, FinishReason::Length, [7, 5, 3]).await;
    }

    #[tokio::test]
    async fn llama_server_stream_is_the_same_at_every_cut() {
        let complete = LLAMA_SERVER.find("[DONE]\n").unwrap() + "[DONE]\n".len();
        check_every_cut(Dialect::LlamaServer, LLAMA_SERVER, complete, FinishReason::Stop, [4, 6, 0]).await;
    }

    #[tokio::test]
    async fn ollama_stream_is_the_same_at_every_cut() {
        check_every_cut(Dialect::Ollama, OLLAMA, OLLAMA.len(), FinishReason::Stop, [9, 2, 0]).await;
    }

    #[tokio::test]
    async fn log_probabilities_are_read_as_bytes() {
        let server = CutServer::start(Dialect::OpenAi, OPENAI).await;
        let (pieces, ..) = server.read(0, false).await.unwrap();
        let first = &pieces[0].1[0];
        assert_eq!((first.bytes.as_slice(), first.logprob), ("h\u{e4}i".as_bytes(), -0.5));
        assert_eq!(first.top, [(b"ho".to_vec(), -1.0)]);
        assert!(pieces[1].1.is_empty());
    }

    #[tokio::test]
    async fn answer_without_an_end_is_an_error() {
        for (dialect, text) in [
            (Dialect::OpenAi, "data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\n"),
            (Dialect::Ollama, "{\"message\":{\"content\":\"x\"},\"done\":false}\n"),
        ] {
            let error = CutServer::start(dialect, text).await.read(0, false).await.unwrap_err();
            assert_eq!(error.to_string(), "m failed: the answer ended early");
        }
    }

    #[tokio::test]
    async fn stream_error_has_the_message_of_the_server() {
        for (dialect, text, expected) in [
            (
                Dialect::LlamaServer,
                "data: {\"error\":{\"message\":\"no memory\"}}\n\n",
                "m failed: no memory",
            ),
            (Dialect::Ollama, "{\"error\":\"no memory\"}\n", "m failed: no memory"),
        ] {
            let error = CutServer::start(dialect, text).await.read(0, false).await.unwrap_err();
            assert_eq!(error.to_string(), expected);
        }
        let error = CutServer::start(Dialect::OpenAi, "data: {\n\n").await.read(0, false).await.unwrap_err();
        assert!(error.to_string().starts_with("m failed: an event is not JSON"), "{error}");
    }
}
