//! Reads the streamed answer of a text server.
//!
//! Invariant: a server can send comments for ever, so only its events extend `deadline`.

use std::sync::Arc;

use tightwad_core::{BackendError, FinishReason, Request, Usage, root_cause};
use tightwad_net::Lines;
use tokio::time::{Instant, timeout_at};

use crate::answer_parser::{AnswerParser, LineRefusal, TextPiece};
use crate::client::{Client, EVENT_TIMEOUT};

/// The longest event in bytes.
const MAX_EVENT_BYTES: usize = 1 << 20;

/// The stream of one answer.
pub(crate) struct AnswerStream {
    lines: Lines,
    client: Arc<Client>,
    parser: AnswerParser,
    /// The time at which the server is given up.
    deadline: Instant,
}

impl AnswerStream {
    pub(crate) async fn start(client: &Arc<Client>, request: &Request) -> Result<Self, BackendError> {
        let deadline = Instant::now() + client.first_token_timeout;
        let reply = client.start_generation(request).await?;
        let parser = AnswerParser::new(client.dialect, request.sampling.logprobs);
        Ok(Self { lines: Lines::new(reply, MAX_EVENT_BYTES), client: client.clone(), parser, deadline })
    }

    /// The next piece; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<TextPiece>, BackendError> {
        while !self.parser.has_ended() {
            let Some(line) = self.next_line().await? else { break };
            let Some(piece) = self.parser.parse_line(&line).map_err(|error| self.refused(&error))? else {
                continue;
            };
            // A model that thinks sends events without text.
            self.deadline = self.deadline.max(Instant::now() + EVENT_TIMEOUT);
            if !piece.is_empty() {
                self.deadline = Instant::now() + EVENT_TIMEOUT;
                return Ok(Some(piece));
            }
        }
        self.parser.finish().ok_or_else(|| self.failed("the answer ended early"))
    }

    async fn next_line(&mut self) -> Result<Option<Vec<u8>>, BackendError> {
        match timeout_at(self.deadline, self.lines.next()).await {
            Ok(line) => line.map_err(|error| self.failed(root_cause(&error))),
            Err(_) if self.parser.pieces() == 0 => {
                let seconds = self.client.first_token_timeout.as_secs_f64();
                Err(self.failed(format!("no token within {seconds} s")))
            }
            Err(_) => Err(self.failed(format!("no further token within {} s", EVENT_TIMEOUT.as_secs()))),
        }
    }

    /// The reason why the answer ended.
    pub(crate) fn finish_reason(&self) -> FinishReason {
        self.parser.finish_reason()
    }

    /// The token counts of the answer.
    pub(crate) fn usage(&self) -> Usage {
        self.parser.usage()
    }

    fn refused(&self, refusal: &LineRefusal) -> BackendError {
        match refusal {
            LineRefusal::Server(message) => self.failed(self.client.excerpt(message)),
            other => self.failed(other),
        }
    }

    fn failed(&self, reason: impl ToString) -> BackendError {
        BackendError::failed(&self.client.name, reason)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tightwad_core::{Sampling, SamplingSpec, TextLogprobs};

    use super::*;
    use crate::dialect::Dialect;
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

    /// A request with log-probabilities.
    fn request() -> Request {
        let spec = SamplingSpec { logprobs: Some(1), ..SamplingSpec::default() };
        Request { sampling: Sampling::new(spec).unwrap(), ..Request::default() }
    }

    type Answer = (Vec<(String, Vec<TextLogprobs>)>, FinishReason, [u32; 3]);

    /// A server that sends a text in two chunks. `sent` holds the text, the length of the first chunk, and
    /// true if the connection breaks after the first chunk.
    struct CutServer {
        server: FakeServer,
        client: Arc<Client>,
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
            let client = Arc::new(server.client(dialect).await);
            Self { server, client, sent }
        }

        async fn read(&self, cut: usize, broken: bool) -> Result<Answer, BackendError> {
            {
                let mut sent = self.sent.lock().unwrap();
                (sent.1, sent.2) = (cut, broken);
            }
            let mut events = AnswerStream::start(&self.client, &request()).await?;
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
