//! Fakes for tests of logic: a model whose tokens are bytes and whose answer is known.
//!
//! [`FakeModel`] behaves as a real backend does: it verifies, decodes, proposes, answers and scores, all from one text.
//! It can be made to fail after a number of tokens, as a machine that is lost does.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;

use crate::backend::{Backend, DrafterSource, Generator, Scorer, Sink, TargetSource};
use crate::draft::Draft;
use crate::error::BackendError;
use crate::event::{Event, Outcome};
use crate::facts::ModelFacts;
use crate::output::generate_plainly;
use crate::request::{Prompt, Request};
use crate::session::{Drafter, Expected, Left, OpenTarget, Pass, Processor, Target, Task, Tokenizer};
use crate::tokens::{Committed, Finish, Proposal, Scored, TokenId, Verified};

/// A vocabulary whose tokens are the 256 bytes.
#[derive(Debug, Clone, Copy)]
pub struct Bytes;

#[async_trait]
impl Tokenizer for Bytes {
    async fn tokenize(&self, text: &str) -> Result<Vec<TokenId>, BackendError> {
        Ok(tokens(text))
    }

    async fn detokenize(&self, tokens: &[TokenId]) -> Result<Vec<u8>, BackendError> {
        Ok(tokens.iter().map(|token| *token as u8).collect())
    }
}

/// The tokens of `text`.
#[must_use]
pub fn tokens(text: &str) -> Vec<TokenId> {
    text.bytes().map(u32::from).collect()
}

/// An ability that a [`FakeModel`] can lack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ability {
    /// It has the role of a [`Generator`].
    Generate,
    /// It has the role of a [`TargetSource`].
    Target,
    /// Its targets verify.
    Verify,
    /// Its targets resume.
    Resume,
    /// It has the role of a [`DrafterSource`].
    Draft,
    /// It has the role of a [`Scorer`].
    Score,
}

/// A model that always gives the same answer.
#[derive(Debug, Clone)]
pub struct FakeModel {
    /// Its name in reports.
    pub name: String,
    /// What it answers to everything.
    pub answer: String,
    /// The abilities that it lacks.
    pub lacks: Vec<Ability>,
    /// Tokens after which every call of a session fails; `None`: never.
    pub fails_after: Option<usize>,
    /// It proposes nothing, ever: its calls do not return.
    pub stuck: bool,
    /// What a pass costs its request.
    pub cost: Duration,
    /// Sessions that were opened.
    pub opened: Arc<AtomicUsize>,
}

impl FakeModel {
    /// A model that answers `answer` and can do everything.
    #[must_use]
    pub fn new(name: &str, answer: &str) -> Self {
        Self {
            name: name.to_owned(),
            answer: answer.to_owned(),
            lacks: Vec::new(),
            fails_after: None,
            stuck: false,
            cost: Duration::ZERO,
            opened: Arc::default(),
        }
    }

    /// The same model, lost after `tokens` tokens of an answer.
    #[must_use]
    pub fn failing_after(self, tokens: usize) -> Self {
        Self { fails_after: Some(tokens), ..self }
    }

    /// The same model without `ability`.
    #[must_use]
    pub fn lacking(mut self, ability: Ability) -> Self {
        self.lacks.push(ability);
        self
    }

    fn has(&self, ability: Ability) -> bool {
        !self.lacks.contains(&ability)
    }

    /// A session that goes on behind `output`.
    #[must_use]
    pub fn target(&self, output: usize, max_tokens: u32) -> FakeTarget {
        self.opened.fetch_add(1, Ordering::Relaxed);
        FakeTarget { model: self.clone(), at: output, max_tokens: max_tokens as usize, decoding: 0 }
    }

    /// A session that proposes.
    #[must_use]
    pub fn drafter(&self) -> FakeDrafter {
        FakeDrafter { model: self.clone() }
    }
}

/// The request `request` as a [`FakeModel`] reads it.
#[must_use]
pub fn task(request: Arc<Request>) -> Task {
    let text = match &request.prompt {
        Prompt::Text(text) => text.clone(),
        Prompt::Chat(_) => request.prompt.text(),
    };
    Task {
        prompt: tokens(&text).into(),
        text: text.into(),
        max_tokens: request.max_tokens.unwrap_or(1000),
        constraint: None,
        tokenizer: Arc::new(Bytes),
        request,
    }
}

/// Where events go, and how to see them: the text that has come so far.
pub struct Events(mpsc::Receiver<Event>);

impl Events {
    /// A sink and its events.
    #[must_use]
    pub fn new() -> (Sink, Self) {
        let (sink, events) = mpsc::channel(1024);
        (sink, Self(events))
    }

    /// The text that has come and was not taken before.
    pub fn text(&mut self) -> String {
        let mut text = String::new();
        while let Ok(event) = self.0.try_recv() {
            text.push_str(&event.text);
        }
        text
    }
}

/// A session of a [`FakeModel`] that verifies.
#[derive(Debug)]
pub struct FakeTarget {
    model: FakeModel,
    at: usize,
    max_tokens: usize,
    decoding: u32,
}

impl FakeTarget {
    fn lost(&self) -> Result<(), BackendError> {
        match self.model.fails_after {
            Some(after) if self.at >= after => Err(BackendError::failed(&self.model.name, "it is lost")),
            _ => Ok(()),
        }
    }

    /// Commits what the model says next; false at its end.
    fn advance(&mut self, verified: &mut Verified) -> bool {
        match self.model.answer.as_bytes().get(self.at) {
            None => verified.finish = Some(Finish::Stop),
            Some(byte) => {
                verified.committed.push(Committed { token: u32::from(*byte), logprobs: None });
                self.at += 1;
                if self.at >= self.max_tokens {
                    verified.finish = Some(Finish::Length);
                }
            }
        }
        verified.finish.is_none()
    }

    fn agreement(&self, path: &[TokenId]) -> usize {
        let rest = self.model.answer.as_bytes().get(self.at..).unwrap_or_default();
        path.iter().zip(rest).take_while(|(token, byte)| **token == u32::from(**byte)).count()
    }
}

#[async_trait]
impl Target for FakeTarget {
    async fn verify(&mut self, draft: &Draft) -> Result<Verified, BackendError> {
        self.lost()?;
        let agreed = draft.paths().iter().map(|path| self.agreement(path)).max().unwrap_or(0);
        let mut verified = Verified { cost: self.model.cost, ..Verified::default() };
        for _ in 0..agreed {
            if !self.advance(&mut verified) {
                break;
            }
        }
        verified.accepted = u32::try_from(verified.committed.len()).unwrap_or(u32::MAX);
        verified.rows = u32::try_from(draft.nodes() + 1).unwrap_or(u32::MAX);
        if verified.finish.is_none() {
            self.advance(&mut verified);
        }
        Ok(verified)
    }

    async fn accept(&mut self, tokens: &[TokenId]) -> Result<usize, BackendError> {
        self.lost()?;
        let accepted = tokens.len().min(self.max_tokens - self.at);
        self.at += accepted;
        Ok(accepted)
    }

    async fn decode(&mut self, max: u32) -> Result<(), BackendError> {
        self.lost()?;
        self.decoding = max;
        Ok(())
    }

    async fn step(&mut self) -> Result<Option<Verified>, BackendError> {
        let Some(left) = self.decoding.checked_sub(1) else { return Ok(None) };
        self.lost()?;
        let mut verified = Verified { cost: self.model.cost, ..Verified::default() };
        self.decoding = if self.advance(&mut verified) { left } else { 0 };
        Ok(Some(verified))
    }

    fn bytes(&self, token: TokenId) -> Vec<u8> {
        vec![token as u8]
    }

    fn expected(&self) -> Pass {
        Pass::default()
    }

    fn processor(&self) -> Processor {
        Processor::Here
    }
}

/// A session of a [`FakeModel`] that proposes.
#[derive(Debug)]
pub struct FakeDrafter {
    model: FakeModel,
}

#[async_trait]
impl Drafter for FakeDrafter {
    fn name(&self) -> &str {
        &self.model.name
    }

    fn processor(&self) -> Processor {
        Processor::Nothing
    }

    fn expected(&self) -> Expected {
        Expected::default()
    }

    async fn propose(
        &mut self,
        output: &[TokenId],
        max: u32,
        _min_probability: f32,
    ) -> Result<Vec<Proposal>, BackendError> {
        if self.model.stuck {
            std::future::pending::<()>().await;
        }
        if self.model.fails_after.is_some_and(|after| output.len() >= after) {
            return Err(BackendError::failed(&self.model.name, "it is lost"));
        }
        let rest = self.model.answer.bytes().skip(output.len()).take(max as usize);
        Ok(rest.map(|byte| Proposal { token: u32::from(byte), probability: 0.9 }).collect())
    }
}

impl Backend for FakeModel {
    fn name(&self) -> &str {
        &self.name
    }

    fn vocabulary(&self) -> Option<[u8; 32]> {
        Some([7; 32])
    }

    fn facts(&self) -> Option<ModelFacts> {
        Some(ModelFacts { context: 1000, ..ModelFacts::default() })
    }

    fn as_generator(&self) -> Option<&dyn Generator> {
        if self.has(Ability::Generate) { Some(self) } else { None }
    }

    fn as_target(&self) -> Option<&dyn TargetSource> {
        if self.has(Ability::Target) { Some(self) } else { None }
    }

    fn as_drafter(&self) -> Option<&dyn DrafterSource> {
        if self.has(Ability::Draft) { Some(self) } else { None }
    }

    fn as_scorer(&self) -> Option<&dyn Scorer> {
        if self.has(Ability::Score) { Some(self) } else { None }
    }
}

#[async_trait]
impl Generator for FakeModel {
    async fn generate(&self, request: Request, sink: Sink) -> Result<Outcome, BackendError> {
        generate_plainly(self, request, sink).await
    }
}

#[async_trait]
impl TargetSource for FakeModel {
    fn verifies(&self) -> bool {
        self.has(Ability::Verify)
    }

    fn resumes(&self) -> bool {
        self.has(Ability::Resume)
    }

    fn tokenizer(&self) -> Option<Arc<dyn Tokenizer>> {
        Some(Arc::new(Bytes))
    }

    async fn read(&self, request: &Arc<Request>) -> Result<Task, BackendError> {
        Ok(task(request.clone()))
    }

    async fn open_target(
        &self,
        request: &Arc<Request>,
        left: Option<&Left>,
    ) -> Result<OpenTarget, BackendError> {
        let task = task(request.clone());
        let session = self.target(left.map_or(0, |left| left.output.len()), task.max_tokens);
        session.lost()?;
        Ok(OpenTarget { session: Box::new(session), cached: 0, task })
    }
}

#[async_trait]
impl DrafterSource for FakeModel {
    async fn open_drafter(&self, _task: &Task) -> Result<Box<dyn Drafter>, BackendError> {
        Ok(Box::new(self.drafter()))
    }
}

#[async_trait]
impl Scorer for FakeModel {
    /// Where the answer is the model's own, each token is certain; elsewhere it is the tenth best.
    async fn score(
        &self,
        _request: &Arc<Request>,
        answer: &str,
        part: Range<usize>,
    ) -> Result<Vec<Scored>, BackendError> {
        if self.fails_after == Some(0) {
            return Err(BackendError::failed(&self.name, "it is lost"));
        }
        let own = self.answer.as_bytes();
        let score = |(at, byte): (usize, u8)| {
            let best = own.get(at).copied().unwrap_or_default();
            let (logprob, rank) = if best == byte { (0.0, 0) } else { (-9.0, 10) };
            Scored { token: u32::from(byte), logprob, rank, best: u32::from(best), best_logprob: 0.0 }
        };
        Ok(answer.bytes().enumerate().map(score).skip(part.start).take(part.len()).collect())
    }
}
