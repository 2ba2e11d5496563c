//! A text server as a target by replay. The server generates freely, and the target compares the draft with
//! the server's text.
//!
//! Replay is exact, because every token is the server's own, and never faster than the server. Its tokens are
//! the pieces of text that the server streams.
//!
//! Invariant: a token id stands for the same text throughout one answer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tightwad_core::{
    BackendError, CommittedToken, Device, Draft, FinishReason, OpenedTarget, PassCost, PreparedRequest,
    Request, StepResult, Target, TokenId, TokenLogprobs, Tokenizer, sync,
};

use crate::client::Client;
use crate::events::AnswerStream;

/// The vocabulary of one answer: pieces of text and their ids.
#[derive(Default)]
pub(crate) struct Pieces(Mutex<PieceTable>);

#[derive(Default)]
struct PieceTable {
    texts: Vec<Arc<str>>,
    ids: HashMap<Arc<str>, TokenId>,
}

impl Pieces {
    fn id(&self, text: &str) -> TokenId {
        let mut table = sync::lock(&self.0);
        if let Some(id) = table.ids.get(text) {
            return *id;
        }
        let (text, id): (Arc<str>, _) = (text.into(), table.texts.len() as TokenId);
        table.texts.push(text.clone());
        table.ids.insert(text, id);
        id
    }

    fn text(&self, id: TokenId) -> Arc<str> {
        let table = sync::lock(&self.0);
        table.texts.get(id as usize).cloned().unwrap_or_default()
    }
}

#[async_trait]
impl Tokenizer for Pieces {
    /// Splits text into words, each with the space before it. Most servers stream such pieces.
    async fn tokenize(&self, text: &str) -> Result<Vec<TokenId>, BackendError> {
        let mut ids = Vec::new();
        let mut start = 0;
        let ends = text.char_indices().skip(1).filter(|(_, c)| c.is_whitespace()).map(|(at, _)| at);
        for end in ends.chain([text.len()]).filter(|end| *end > 0) {
            ids.push(self.id(&text[start..end]));
            start = end;
        }
        Ok(ids)
    }

    async fn detokenize(&self, tokens: &[TokenId]) -> Result<Vec<u8>, BackendError> {
        Ok(tokens.iter().flat_map(|token| self.text(*token).as_bytes().to_vec()).collect())
    }
}

pub(crate) struct ReplayTarget {
    events: AnswerStream,
    pieces: Arc<Pieces>,
    /// Pieces that the current decode must still return.
    remaining_decode_pieces: u32,
    /// Tokens that the request may still commit.
    remaining_tokens: u32,
    logprobs: bool,
    finished: bool,
    device: Device,
}

impl ReplayTarget {
    pub(crate) async fn open(
        client: &Arc<Client>,
        request: &Arc<Request>,
    ) -> Result<OpenedTarget, BackendError> {
        let events = AnswerStream::start(client, request).await?;
        let pieces = Arc::new(Pieces::default());
        let text = request.prompt.text();
        let prepared = PreparedRequest {
            request: request.clone(),
            prompt: pieces.tokenize(&text).await?.into(),
            text: text.into(),
            max_tokens: request.max_tokens.unwrap_or(u32::MAX / 2),
            constraint: None,
            tokenizer: pieces.clone(),
        };
        let session = Self {
            events,
            pieces,
            remaining_decode_pieces: 0,
            remaining_tokens: prepared.max_tokens,
            logprobs: request.sampling.logprobs.is_some(),
            finished: false,
            device: client.device(),
        };
        Ok(OpenedTarget { session: Box::new(session), cached_tokens: 0, prepared })
    }

    /// The server's next piece as a token; `None` at the end of the answer.
    async fn next_token(&mut self) -> Result<Option<CommittedToken>, BackendError> {
        let Some(piece) = self.events.next().await? else { return Ok(None) };
        self.remaining_tokens = self.remaining_tokens.saturating_sub(1);
        let to_token_logprobs = |entry: &tightwad_core::TextLogprobs| {
            let id = |bytes: &[u8]| self.pieces.id(&String::from_utf8_lossy(bytes));
            let top = entry.top.iter().map(|(bytes, value)| (id(bytes), *value)).collect();
            TokenLogprobs { logprob: entry.logprob, top }
        };
        let logprobs = piece.logprobs.first().filter(|_| self.logprobs).map(to_token_logprobs);
        Ok(Some(CommittedToken { token: self.pieces.id(&piece.text), logprobs }))
    }

    fn finish(&mut self, verified: &mut StepResult) {
        self.finished = true;
        verified.finish_reason = Some(self.events.finish_reason());
    }
}

#[async_trait]
impl Target for ReplayTarget {
    /// Reads the server's text up to the length of the draft, and one more piece.
    async fn verify(&mut self, draft: &Draft) -> Result<StepResult, BackendError> {
        let proposed: Vec<Arc<str>> =
            draft.first_path().iter().map(|token| self.pieces.text(*token)).collect();
        let draft_text = proposed.concat();
        let (mut verified, mut received) = (StepResult::default(), String::new());
        loop {
            let Some(committed) = self.next_token().await? else {
                self.finish(&mut verified);
                break;
            };
            let beyond = received.len() >= draft_text.len();
            received.push_str(&self.pieces.text(committed.token));
            verified.committed.push(committed);
            let agrees = draft_text.starts_with(&received) || received.starts_with(&draft_text);
            if self.remaining_tokens == 0 {
                self.finished = true;
                verified.finish_reason = Some(FinishReason::Length);
            }
            if beyond || !agrees || self.finished {
                break;
            }
        }
        let mut text = String::new();
        let agreed = |piece: &&Arc<str>| {
            text.push_str(piece);
            received.starts_with(&text)
        };
        verified.accepted = proposed.iter().take_while(agreed).count() as u32;
        Ok(verified)
    }

    async fn decode(&mut self, max: u32) -> Result<(), BackendError> {
        self.remaining_decode_pieces = max;
        Ok(())
    }

    async fn step(&mut self) -> Result<Option<StepResult>, BackendError> {
        if self.remaining_decode_pieces == 0 || self.finished {
            return Ok(None);
        }
        self.remaining_decode_pieces -= 1;
        let mut verified = StepResult::default();
        match self.next_token().await? {
            Some(committed) => verified.committed.push(committed),
            None => self.finish(&mut verified),
        }
        Ok(Some(verified))
    }

    fn bytes(&self, token: TokenId) -> Vec<u8> {
        self.pieces.text(token).as_bytes().to_vec()
    }

    fn expected_cost(&self) -> PassCost {
        PassCost::default()
    }

    fn device(&self) -> Device {
        self.device.clone()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::dialect::Dialect;
    use crate::fake_server::{FakeServer, streamed_response};

    /// The pieces of the server's answer.
    const PIECES: [&str; 5] = ["The", " qu\u{ed}ck", " bro", "wn", " fox"];

    fn stream(pieces: &[&str]) -> Vec<u8> {
        let line = |piece: &&str| format!("data: {}\n\n", json!({"choices": [{"text": piece}]}));
        let mut text: String = pieces.iter().map(line).collect();
        text.push_str("data: {\"choices\":[{\"text\":\"\",\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n");
        text.into_bytes()
    }

    async fn open(max_tokens: Option<u32>) -> (FakeServer, OpenedTarget) {
        let body = stream(&PIECES);
        let server = FakeServer::start(move || streamed_response(&[&body], false)).await;
        let client = Arc::new(server.client(Dialect::OpenAi).await);
        let request = Arc::new(Request { max_tokens, ..Request::default() });
        let target = ReplayTarget::open(&client, &request).await.unwrap();
        (server, target)
    }

    /// The text of all committed tokens, the accepted proposals of each call, and the finish reason.
    async fn replay(
        target: &mut OpenedTarget,
        drafts: &[&[&str]],
    ) -> (String, Vec<u32>, Option<FinishReason>) {
        let (mut text, mut accepted, mut finish) = (Vec::new(), Vec::new(), None);
        for draft in drafts {
            let mut tokens = Vec::new();
            for piece in *draft {
                tokens.extend(target.prepared.tokenizer.tokenize(piece).await.unwrap());
            }
            let verified = target.session.verify(&Draft::from(tokens)).await.unwrap();
            text.extend(
                verified.committed.iter().flat_map(|committed| target.session.bytes(committed.token)),
            );
            accepted.push(verified.accepted);
            finish = verified.finish_reason;
            if finish.is_some() {
                break;
            }
        }
        (String::from_utf8(text).unwrap(), accepted, finish)
    }

    #[tokio::test]
    async fn answer_is_the_servers_text_for_every_draft() {
        let whole = PIECES.concat();
        let drafts: [&[&[&str]]; 6] = [
            &[&[], &[], &[], &[], &[], &[]],
            &[&["The", " qu\u{ed}ck", " brown", " fox"], &[]],
            // Other pieces than the server's, and wrong at the end.
            &[&["T", "h"], &[" brow"], &[" nothing"], &[]],
            &[&["A"], &["B"], &["C"], &["D"], &["E"], &["F"]],
            &[&["The quack"], &[" brown", " dog"], &[], &[], &[]],
            &[&["The", " qu\u{ed}ck", " brown", " fox", " jumps"]],
        ];
        for draft in drafts {
            let (_server, mut target) = open(None).await;
            let (text, _, finish) = replay(&mut target, draft).await;
            assert_eq!((text.as_str(), finish), (whole.as_str(), Some(FinishReason::Stop)), "{draft:?}");
        }
    }

    #[tokio::test]
    async fn replay_accepts_proposals_with_equal_text() {
        let (_server, mut target) = open(None).await;
        let (text, accepted, finish) =
            replay(&mut target, &[&["The", " quick"], &[" brown"], &[" fox", " jumps"]]).await;
        // The second draft begins after the server's own second piece.
        assert_eq!((text, accepted), (PIECES.concat(), vec![1, 1, 0]));
        assert_eq!(finish, Some(FinishReason::Stop));
    }

    #[tokio::test]
    async fn replay_commits_at_most_max_tokens() {
        let (server, mut target) = open(Some(2)).await;
        let (text, _, finish) = replay(&mut target, &[&["The", " qu\u{ed}ck", " brown"]]).await;
        assert_eq!((text.as_str(), finish), ("The qu\u{ed}ck", Some(FinishReason::Length)));
        assert_eq!(server.requests()[0].1["max_tokens"], 2);
    }

    #[tokio::test]
    async fn decode_returns_one_piece_per_step() {
        let (_server, mut target) = open(None).await;
        target.session.decode(2).await.unwrap();
        let mut text = Vec::new();
        while let Some(step) = target.session.step().await.unwrap() {
            assert_eq!(step.committed.len(), 1);
            text.extend(target.session.bytes(step.committed[0].token));
        }
        assert_eq!(text, "The qu\u{ed}ck".as_bytes());
    }

    #[tokio::test]
    async fn piece_id_stands_for_one_text() {
        let pieces = Pieces::default();
        let text = "a b  b\u{e4}";
        let ids = pieces.tokenize(text).await.unwrap();
        assert_eq!(pieces.detokenize(&ids).await.unwrap(), text.as_bytes());
        assert_eq!(pieces.id(" b"), pieces.id(" b"));
        assert_ne!(pieces.id(" b"), pieces.id("b"));
        assert_eq!(pieces.tokenize("").await.unwrap(), Vec::<TokenId>::new());
    }
}
