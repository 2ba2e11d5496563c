//! A text server as a target: it generates freely, and what was proposed is compared with what came.
//! Exact, because every token is the server's own; never faster than the server. Its tokens are the
//! pieces it streams.
//!
//! Invariant: a number stands for the same text throughout one answer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tightwad_core::{
    BackendError, Committed, Draft, Finish, OpenTarget, Pass, Processor, Request, Target, Task, TokenId,
    TokenLogprobs, Tokenizer, Verified, sync,
};

use crate::client::Client;
use crate::events::Events;

/// Pieces by number and back.
#[derive(Default)]
pub(crate) struct Pieces(Mutex<Known>);

#[derive(Default)]
struct Known {
    texts: Vec<Arc<str>>,
    numbers: HashMap<Arc<str>, TokenId>,
}

impl Pieces {
    fn number(&self, text: &str) -> TokenId {
        let mut known = sync::lock(&self.0);
        if let Some(number) = known.numbers.get(text) {
            return *number;
        }
        let (text, number): (Arc<str>, _) = (text.into(), known.texts.len() as TokenId);
        known.texts.push(text.clone());
        known.numbers.insert(text, number);
        number
    }

    fn text(&self, number: TokenId) -> Arc<str> {
        let known = sync::lock(&self.0);
        known.texts.get(number as usize).cloned().unwrap_or_default()
    }
}

#[async_trait]
impl Tokenizer for Pieces {
    /// Words, each with the space before it: what most servers' pieces look like.
    async fn tokenize(&self, text: &str) -> Result<Vec<TokenId>, BackendError> {
        let mut numbers = Vec::new();
        let mut start = 0;
        let ends = text.char_indices().skip(1).filter(|(_, c)| c.is_whitespace()).map(|(at, _)| at);
        for end in ends.chain([text.len()]).filter(|end| *end > 0) {
            numbers.push(self.number(&text[start..end]));
            start = end;
        }
        Ok(numbers)
    }

    async fn detokenize(&self, tokens: &[TokenId]) -> Result<Vec<u8>, BackendError> {
        Ok(tokens.iter().flat_map(|token| self.text(*token).as_bytes().to_vec()).collect())
    }
}

pub(crate) struct ReplayTarget {
    events: Events,
    pieces: Arc<Pieces>,
    /// Pieces still to decode.
    decoding: u32,
    /// Tokens that may still be committed.
    left: u32,
    logprobs: bool,
    finished: bool,
    processor: Processor,
}

impl ReplayTarget {
    pub(crate) async fn open(client: &Client, request: &Arc<Request>) -> Result<OpenTarget, BackendError> {
        let events = Events::begin(client, request).await?;
        let pieces = Arc::new(Pieces::default());
        let text = request.prompt.text();
        let task = Task {
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
            decoding: 0,
            left: task.max_tokens,
            logprobs: request.sampling.logprobs.is_some(),
            finished: false,
            processor: client.processor(),
        };
        Ok(OpenTarget { session: Box::new(session), cached: 0, task })
    }

    /// The server's next piece; `None` at the end of its answer.
    async fn piece(&mut self) -> Result<Option<Committed>, BackendError> {
        let Some(piece) = self.events.next().await? else { return Ok(None) };
        self.left = self.left.saturating_sub(1);
        let own = |one: &tightwad_core::TextLogprobs| {
            let number = |bytes: &[u8]| self.pieces.number(&String::from_utf8_lossy(bytes));
            let top = one.top.iter().map(|(bytes, value)| (number(bytes), *value)).collect();
            TokenLogprobs { logprob: one.logprob, top }
        };
        let logprobs = piece.logprobs.first().filter(|_| self.logprobs).map(own);
        Ok(Some(Committed { token: self.pieces.number(&piece.text), logprobs }))
    }

    fn end(&mut self, verified: &mut Verified) {
        self.finished = true;
        verified.finish = Some(self.events.finish());
    }
}

#[async_trait]
impl Target for ReplayTarget {
    /// Reads as much as was proposed, and a piece more.
    async fn verify(&mut self, draft: &Draft) -> Result<Verified, BackendError> {
        let proposed: Vec<Arc<str>> = draft.first().iter().map(|token| self.pieces.text(*token)).collect();
        let wanted = proposed.concat();
        let (mut verified, mut came) = (Verified::default(), String::new());
        loop {
            let Some(committed) = self.piece().await? else {
                self.end(&mut verified);
                break;
            };
            let beyond = came.len() >= wanted.len();
            came.push_str(&self.pieces.text(committed.token));
            verified.committed.push(committed);
            let agrees = wanted.starts_with(&came) || came.starts_with(&wanted);
            if self.left == 0 {
                self.finished = true;
                verified.finish = Some(Finish::Length);
            }
            if beyond || !agrees || self.finished {
                break;
            }
        }
        let mut text = String::new();
        let agreed = |piece: &&Arc<str>| {
            text.push_str(piece);
            came.starts_with(&text)
        };
        verified.accepted = proposed.iter().take_while(agreed).count() as u32;
        Ok(verified)
    }

    async fn decode(&mut self, max: u32) -> Result<(), BackendError> {
        self.decoding = max;
        Ok(())
    }

    async fn step(&mut self) -> Result<Option<Verified>, BackendError> {
        if self.decoding == 0 || self.finished {
            return Ok(None);
        }
        self.decoding -= 1;
        let mut verified = Verified::default();
        match self.piece().await? {
            Some(committed) => verified.committed.push(committed),
            None => self.end(&mut verified),
        }
        Ok(Some(verified))
    }

    fn bytes(&self, token: TokenId) -> Vec<u8> {
        self.pieces.text(token).as_bytes().to_vec()
    }

    fn expected(&self) -> Pass {
        Pass::default()
    }

    fn processor(&self) -> Processor {
        self.processor.clone()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::dialect::Dialect;
    use crate::fake_server::{FakeServer, stream_of};

    /// The server's pieces.
    const PIECES: [&str; 5] = ["The", " qu\u{ed}ck", " bro", "wn", " fox"];

    fn stream(pieces: &[&str]) -> Vec<u8> {
        let line = |piece: &&str| format!("data: {}\n\n", json!({"choices": [{"text": piece}]}));
        let mut text: String = pieces.iter().map(line).collect();
        text.push_str("data: {\"choices\":[{\"text\":\"\",\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n");
        text.into_bytes()
    }

    async fn open(max_tokens: Option<u32>) -> (FakeServer, OpenTarget) {
        let body = stream(&PIECES);
        let server = FakeServer::start(move || stream_of(&[&body], false)).await;
        let client = server.client(Dialect::OpenAi).await;
        let request = Arc::new(Request { max_tokens, ..Request::default() });
        let target = ReplayTarget::open(&client, &request).await.unwrap();
        (server, target)
    }

    /// The text of all committed tokens, the accepted proposals of each call, and the end.
    async fn replayed(target: &mut OpenTarget, drafts: &[&[&str]]) -> (String, Vec<u32>, Option<Finish>) {
        let (mut text, mut accepted, mut finish) = (Vec::new(), Vec::new(), None);
        for draft in drafts {
            let mut tokens = Vec::new();
            for piece in *draft {
                tokens.extend(target.task.tokenizer.tokenize(piece).await.unwrap());
            }
            let verified = target.session.verify(&Draft::from(tokens)).await.unwrap();
            text.extend(verified.committed.iter().flat_map(|one| target.session.bytes(one.token)));
            accepted.push(verified.accepted);
            finish = verified.finish;
            if finish.is_some() {
                break;
            }
        }
        (String::from_utf8(text).unwrap(), accepted, finish)
    }

    #[tokio::test]
    async fn whatever_is_proposed_the_text_is_the_servers() {
        let whole = PIECES.concat();
        let drafts: [&[&[&str]]; 6] = [
            &[&[], &[], &[], &[], &[], &[]],
            &[&["The", " qu\u{ed}ck", " brown", " fox"], &[]],
            // Cut in another way, and wrong at the end.
            &[&["T", "h"], &[" brow"], &[" nothing"], &[]],
            &[&["A"], &["B"], &["C"], &["D"], &["E"], &["F"]],
            &[&["The quack"], &[" brown", " dog"], &[], &[], &[]],
            &[&["The", " qu\u{ed}ck", " brown", " fox", " jumps"]],
        ];
        for draft in drafts {
            let (_server, mut target) = open(None).await;
            let (text, _, finish) = replayed(&mut target, draft).await;
            assert_eq!((text.as_str(), finish), (whole.as_str(), Some(Finish::Stop)), "{draft:?}");
        }
    }

    #[tokio::test]
    async fn proposals_are_accepted_as_far_as_their_text_agrees() {
        let (_server, mut target) = open(None).await;
        let (text, accepted, finish) =
            replayed(&mut target, &[&["The", " quick"], &[" brown"], &[" fox", " jumps"]]).await;
        // The second draft begins after the server's own second piece.
        assert_eq!((text, accepted), (PIECES.concat(), vec![1, 1, 0]));
        assert_eq!(finish, Some(Finish::Stop));
    }

    #[tokio::test]
    async fn nothing_is_committed_beyond_the_budget() {
        let (server, mut target) = open(Some(2)).await;
        let (text, _, finish) = replayed(&mut target, &[&["The", " qu\u{ed}ck", " brown"]]).await;
        assert_eq!((text.as_str(), finish), ("The qu\u{ed}ck", Some(Finish::Length)));
        assert_eq!(server.asked()[0].1["max_tokens"], 2);
    }

    #[tokio::test]
    async fn decoding_goes_piece_by_piece() {
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
    async fn a_number_stands_for_one_text() {
        let pieces = Pieces::default();
        let text = "a b  b\u{e4}";
        let numbers = pieces.tokenize(text).await.unwrap();
        assert_eq!(pieces.detokenize(&numbers).await.unwrap(), text.as_bytes());
        assert_eq!(pieces.number(" b"), pieces.number(" b"));
        assert_ne!(pieces.number(" b"), pieces.number("b"));
        assert_eq!(pieces.tokenize("").await.unwrap(), Vec::<TokenId>::new());
    }
}
