//! Fakes for unit tests: a model with a known answer, whose tokens are bytes.
//!
//! [`FakeModel`] behaves like a real backend: it verifies, decodes, proposes, answers and scores. The fake can fail
//! after a number of tokens, like a machine that is lost.

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
use crate::output::generate_by_decoding;
use crate::request::Request;
use crate::session::{
    Device, DraftCost, Drafter, OpenedTarget, PassCost, PreparedRequest, ResumePoint, Target, Tokenizer,
};
use crate::tokens::{CommittedToken, FinishReason, Proposal, StepResult, TokenId, TokenScore};

/// The tokenizer of a vocabulary with one token per byte.
#[derive(Debug, Clone, Copy)]
pub struct ByteTokenizer;

#[async_trait]
impl Tokenizer for ByteTokenizer {
    async fn tokenize(&self, text: &str) -> Result<Vec<TokenId>, BackendError> {
        Ok(tokens(text))
    }

    async fn detokenize(&self, tokens: &[TokenId]) -> Result<Vec<u8>, BackendError> {
        Ok(tokens.iter().map(|token| *token as u8).collect())
    }
}

/// The tokens of `text`: one per byte.
#[must_use]
pub fn tokens(text: &str) -> Vec<TokenId> {
    text.bytes().map(u32::from).collect()
}

/// An ability that a [`FakeModel`] can lack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ability {
    /// The role of a [`Generator`].
    Generate,
    /// The role of a [`TargetSource`].
    Target,
    /// Targets that resume.
    Resume,
    /// The role of a [`DrafterSource`].
    Draft,
    /// The role of a [`Scorer`].
    Score,
}

/// A model that always gives the same answer.
#[derive(Debug, Clone)]
pub struct FakeModel {
    /// The name in reports.
    pub name: String,
    /// The answer to every request.
    pub answer: String,
    /// The abilities that the model lacks.
    pub lacks: Vec<Ability>,
    /// The number of tokens after which each call of a session fails; `None`: never.
    pub fails_after: Option<usize>,
    /// True when calls of a drafter never return.
    pub stuck: bool,
    /// The attributed cost of a pass.
    pub cost: Duration,
    /// The number of opened sessions.
    pub opened: Arc<AtomicUsize>,
}

impl FakeModel {
    /// A model with all abilities that answers `answer`.
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

    /// The same model, which fails after `tokens` tokens of an answer.
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

    /// A target session after `output_tokens` committed tokens.
    #[must_use]
    pub fn target(&self, output_tokens: usize, max_tokens: u32) -> FakeTarget {
        self.opened.fetch_add(1, Ordering::Relaxed);
        FakeTarget {
            model: self.clone(),
            output_tokens,
            max_tokens: max_tokens as usize,
            remaining_tokens: 0,
        }
    }

    /// A drafter session.
    #[must_use]
    pub fn drafter(&self) -> FakeDrafter {
        FakeDrafter { model: self.clone() }
    }
}

/// Prepares `request` as a [`FakeModel`] does.
#[must_use]
pub fn prepare(request: Arc<Request>) -> PreparedRequest {
    let text = request.prompt.text();
    PreparedRequest {
        prompt: tokens(&text).into(),
        text: text.into(),
        max_tokens: request.max_tokens.unwrap_or(1000),
        constraint: None,
        tokenizer: Arc::new(ByteTokenizer),
        request,
    }
}

/// Collects the events of a sink.
pub struct Events(mpsc::Receiver<Event>);

impl Events {
    /// A sink and the collector of its events.
    #[must_use]
    pub fn new() -> (Sink, Self) {
        let (sink, events) = mpsc::channel(1024);
        (sink, Self(events))
    }

    /// Takes the text that has arrived since the last call.
    pub fn text(&mut self) -> String {
        let mut text = String::new();
        while let Ok(event) = self.0.try_recv() {
            text.push_str(&event.text);
        }
        text
    }
}

/// A target session of a [`FakeModel`].
#[derive(Debug)]
pub struct FakeTarget {
    model: FakeModel,
    output_tokens: usize,
    max_tokens: usize,
    /// The number of tokens that the current decode may still commit.
    remaining_tokens: u32,
}

impl FakeTarget {
    fn check_failure(&self) -> Result<(), BackendError> {
        match self.model.fails_after {
            Some(after) if self.output_tokens >= after => {
                Err(BackendError::failed(&self.model.name, "it is lost"))
            }
            _ => Ok(()),
        }
    }

    /// Commits the next token of the answer. Returns false at the end of the answer.
    fn advance(&mut self, step: &mut StepResult) -> bool {
        match self.model.answer.as_bytes().get(self.output_tokens) {
            None => step.finish_reason = Some(FinishReason::Stop),
            Some(byte) => {
                step.committed.push(CommittedToken { token: u32::from(*byte), logprobs: None });
                self.output_tokens += 1;
                if self.output_tokens >= self.max_tokens {
                    step.finish_reason = Some(FinishReason::Length);
                }
            }
        }
        step.finish_reason.is_none()
    }

    /// The number of tokens at the start of `path` that equal the answer.
    fn equal_tokens(&self, path: &[TokenId]) -> usize {
        let next_tokens = self.model.answer.as_bytes().get(self.output_tokens..).unwrap_or_default();
        path.iter().zip(next_tokens).take_while(|(token, byte)| **token == u32::from(**byte)).count()
    }
}

#[async_trait]
impl Target for FakeTarget {
    async fn verify(&mut self, draft: &Draft) -> Result<StepResult, BackendError> {
        self.check_failure()?;
        let agreed = draft.paths().iter().map(|path| self.equal_tokens(path)).max().unwrap_or(0);
        let mut step = StepResult { cost: self.model.cost, ..StepResult::default() };
        for _ in 0..agreed {
            if !self.advance(&mut step) {
                break;
            }
        }
        step.accepted = u32::try_from(step.committed.len()).unwrap_or(u32::MAX);
        step.rows = u32::try_from(draft.node_count() + 1).unwrap_or(u32::MAX);
        if step.finish_reason.is_none() {
            self.advance(&mut step);
        }
        Ok(step)
    }

    async fn append_unverified(&mut self, tokens: &[TokenId]) -> Result<usize, BackendError> {
        self.check_failure()?;
        let appended = tokens.len().min(self.max_tokens - self.output_tokens);
        self.output_tokens += appended;
        Ok(appended)
    }

    async fn decode(&mut self, max_tokens: u32) -> Result<(), BackendError> {
        self.check_failure()?;
        self.remaining_tokens = max_tokens;
        Ok(())
    }

    async fn step(&mut self) -> Result<Option<StepResult>, BackendError> {
        let Some(left) = self.remaining_tokens.checked_sub(1) else { return Ok(None) };
        self.check_failure()?;
        let mut step = StepResult { cost: self.model.cost, ..StepResult::default() };
        self.remaining_tokens = if self.advance(&mut step) { left } else { 0 };
        Ok(Some(step))
    }

    fn bytes(&self, token: TokenId) -> Vec<u8> {
        vec![token as u8]
    }

    fn expected_cost(&self) -> PassCost {
        PassCost::default()
    }

    fn device(&self) -> Device {
        Device::LocalCpu
    }
}

/// A drafter session of a [`FakeModel`].
#[derive(Debug)]
pub struct FakeDrafter {
    model: FakeModel,
}

#[async_trait]
impl Drafter for FakeDrafter {
    fn name(&self) -> &str {
        &self.model.name
    }

    fn device(&self) -> Device {
        Device::None
    }

    fn expected_cost(&self) -> DraftCost {
        DraftCost::default()
    }

    async fn propose(
        &mut self,
        output: &[TokenId],
        max_tokens: u32,
        _min_probability: f32,
    ) -> Result<Vec<Proposal>, BackendError> {
        if self.model.stuck {
            std::future::pending::<()>().await;
        }
        if self.model.fails_after.is_some_and(|after| output.len() >= after) {
            return Err(BackendError::failed(&self.model.name, "it is lost"));
        }
        let next_tokens = self.model.answer.bytes().skip(output.len()).take(max_tokens as usize);
        Ok(next_tokens.map(|byte| Proposal { token: u32::from(byte), probability: 0.9 }).collect())
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
        generate_by_decoding(self, request, sink).await
    }
}

#[async_trait]
impl TargetSource for FakeModel {
    fn resumes(&self) -> bool {
        self.has(Ability::Resume)
    }

    fn tokenizer(&self) -> Option<Arc<dyn Tokenizer>> {
        Some(Arc::new(ByteTokenizer))
    }

    async fn prepare(&self, request: &Arc<Request>) -> Result<PreparedRequest, BackendError> {
        Ok(prepare(request.clone()))
    }

    async fn open_target(
        &self,
        request: &Arc<Request>,
        resume_point: Option<&ResumePoint>,
    ) -> Result<OpenedTarget, BackendError> {
        let prepared = prepare(request.clone());
        let session = self.target(resume_point.map_or(0, |point| point.output.len()), prepared.max_tokens);
        session.check_failure()?;
        Ok(OpenedTarget { session: Box::new(session), cached_tokens: 0, prepared })
    }
}

#[async_trait]
impl DrafterSource for FakeModel {
    async fn open_drafter(&self, _request: &PreparedRequest) -> Result<Box<dyn Drafter>, BackendError> {
        Ok(Box::new(self.drafter()))
    }
}

#[async_trait]
impl Scorer for FakeModel {
    /// Tokens of the model's own answer are certain. Other tokens have rank 10.
    async fn score(
        &self,
        _request: &Arc<Request>,
        answer: &str,
        range: Range<usize>,
    ) -> Result<Vec<TokenScore>, BackendError> {
        if self.fails_after == Some(0) {
            return Err(BackendError::failed(&self.name, "it is lost"));
        }
        let own_answer = self.answer.as_bytes();
        let score = |(position, byte): (usize, u8)| {
            let best = own_answer.get(position).copied().unwrap_or_default();
            let (logprob, rank) = if best == byte { (0.0, 0) } else { (-9.0, 10) };
            TokenScore { token: u32::from(byte), logprob, rank, best: u32::from(best), best_logprob: 0.0 }
        };
        Ok(answer.bytes().enumerate().map(score).skip(range.start).take(range.len()).collect())
    }
}
