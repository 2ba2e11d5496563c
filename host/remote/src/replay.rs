//! A text server as a target: it generates freely, and what was proposed is compared with what came.
//! Exact, because every token is the server's own; never faster than the server. Its tokens are the
//! pieces it streams.
//!
//! Invariant: a number stands for the same text throughout one answer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tightwad_core::{
    BackendError, Committed, Draft, Finish, OpenTarget, Pass, Processor, Request, Target, Task, TokenId,
    TokenLogprobs, Tokenizer, Verified,
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
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(number) = known.numbers.get(text) {
            return *number;
        }
        let (text, number): (Arc<str>, _) = (text.into(), known.texts.len() as TokenId);
        known.texts.push(text.clone());
        known.numbers.insert(text, number);
        number
    }

    fn text(&self, number: TokenId) -> Arc<str> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
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
