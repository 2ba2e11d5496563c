//! One request as a gate drives it: the fleet's answers, what the reviewer thinks of them, and the end.
//!
//! Invariant: text goes to the client once, with `ending`; before that the client has nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tightwad_engine::{Sampling, SamplingSpec, Scored};
use tokio::task::JoinSet;

use super::judgement::{filled, strictly};
use super::{GatePolicyPlugin, Slot};
use crate::backend::{
    BackendError, Capabilities, Committed, Left, Output, SharedBackend, Sink, Verified, decode_to_end, relay,
};
use crate::types::{Event, Finish, Format, Message, Outcome, Prompt, Request, Usage};

/// How a member of the fleet has done.
#[derive(Debug, Default)]
pub struct MemberCounts {
    /// Answers that it wrote.
    pub written: AtomicU32,
    /// Those of them that were approved unchanged.
    pub approved: AtomicU32,
}

/// What a script wants when the reviewer is lost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnReviewerLost {
    /// The request fails.
    #[default]
    Error,
    /// A candidate is passed on, and the response says that nobody reviewed it.
    PassLabelled,
}

/// Ways of reviewing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ways {
    /// The reviewer's probabilities of the answer's tokens.
    pub score: bool,
    /// The reviewer's own words.
    pub judge: bool,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// A candidate was passed on unchanged.
    Approved,
    /// The reviewer went on behind a part of a candidate.
    Corrected,
    /// The reviewer answered itself.
    Rejected,
    /// A candidate was passed on without a review, because the reviewer was lost.
    Unreviewed,
}

impl Ending {
    /// As reports and metrics call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Approved => "approved",
            Self::Corrected => "corrected",
            Self::Rejected => "rejected",
            Self::Unreviewed => "unreviewed",
        }
    }
}

/// What happened while a task ran.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ReviewTally {
    /// How it ended.
    pub ending: Option<Ending>,
    /// Who wrote what was passed on, or a part of it.
    pub writer: Option<String>,
    /// The share of the candidate that was kept.
    pub kept: f64,
    /// Tokens that the reviewer generated: judgements, corrections, answers of its own.
    pub decoded: u32,
    /// Tokens that it only read: prompts and candidates.
    pub read: u32,
    /// Time in writing, in reviewing, and until the end after that.
    pub took: [Duration; 3],
}

/// What a task is made of.
pub struct TaskSpec {
    /// Who writes.
    pub fleet: Vec<(SharedBackend, Arc<MemberCounts>)>,
    /// Who reviews.
    pub reviewer: SharedBackend,
    /// How.
    pub ways: Ways,
    /// What the reviewer is asked; `{question}` and `{answer}` stand for what they say.
    pub prompt: String,
    /// A JSON object for the gate.
    pub settings: String,
    /// Whose verdict counts in place of the gate's own.
    pub policy: Option<Arc<Slot<GatePolicyPlugin>>>,
    /// What happens when the reviewer is lost.
    pub on_lost: OnReviewerLost,
}

/// An answer that a member wrote.
pub(super) struct Written {
    pub member: usize,
    pub text: String,
    pub outcome: Outcome,
    pub took: Duration,
    /// The reviewer's tokens of it, once scored.
    scored: Vec<Scored>,
}

/// A request in the hands of a gate.
pub struct ReviewTask {
    pub(super) spec: TaskSpec,
    request: Arc<Request>,
    sink: Sink,
    /// Something may have gone to the client.
    begun: bool,
    pub(super) written: Vec<Written>,
    outcome: Option<Outcome>,
    failure: Option<BackendError>,
    tally: ReviewTally,
}

impl ReviewTask {
    /// A task; what is passed on goes to `sink`.
    #[must_use]
    pub fn new(spec: TaskSpec, request: Arc<Request>, sink: Sink) -> Self {
        let (written, tally) = (Vec::new(), ReviewTally::default());
        Self { spec, request, sink, begun: false, written, outcome: None, failure: None, tally }
    }

    /// What came of it: the reviewer answers itself where nothing was passed on yet.
    ///
    /// # Errors
    ///
    /// The reviewer's, and [`BackendError::Cancelled`] when the client has left.
    pub async fn settle(mut self) -> Result<(Outcome, ReviewTally), BackendError> {
        if !self.is_over() {
            self.rewrite().await;
            self.pass_unreviewed().await;
        }
        match (self.failure, self.outcome) {
            (Some(failure), _) => Err(failure),
            (None, Some(outcome)) => Ok((outcome, self.tally)),
            (None, None) => Err(BackendError::failed(self.spec.reviewer.name(), "it gave no answer")),
        }
    }

    /// True when nothing more can be done.
    pub(super) fn is_over(&self) -> bool {
        self.failure.is_some() || self.outcome.is_some()
    }

    /// Lets members write, until `enough` are done; the numbers of the new candidates.
    pub(super) async fn write(&mut self, members: &[usize], enough: usize) -> std::ops::Range<usize> {
        let (start, before) = (Instant::now(), self.written.len());
        let mut writing = JoinSet::new();
        for member in members.iter().copied() {
            let Some((backend, _)) = self.spec.fleet.get(member) else { continue };
            let (backend, request) = (backend.clone(), (*self.request).clone());
            writing.spawn(async move {
                let (start, mut text) = (Instant::now(), String::new());
                let each = |event: Event| {
                    text.push_str(&event.text);
                    async { true }
                };
                let outcome = relay(backend.as_ref(), request, each).await;
                (member, outcome.map(|outcome| (text, outcome)), start.elapsed())
            });
        }
        while self.written.len() - before < enough {
            let done = tokio::select! {
                done = writing.join_next() => done,
                () = self.sink.closed() => {
                    self.failure = Some(BackendError::Cancelled);
                    break;
                }
            };
            match done {
                None => break,
                Some(Ok((member, Ok((text, outcome)), took))) => {
                    self.spec.fleet[member].1.written.fetch_add(1, Ordering::Relaxed);
                    self.written.push(Written { member, text, outcome, took, scored: Vec::new() });
                }
                Some(Ok((member, Err(error), _))) => {
                    let member = self.spec.fleet[member].0.name();
                    tracing::warn!(member, %error, "lost; another one writes");
                }
                Some(Err(_)) => {}
            }
        }
        self.tally.took[0] += start.elapsed();
        before..self.written.len()
    }

    /// The reviewer's probabilities of a candidate's tokens.
    pub(super) async fn score(&mut self, candidate: usize) -> Result<&[Scored], BackendError> {
        let start = Instant::now();
        let text = self.written[candidate].text.clone();
        let scored = self.spec.reviewer.score(&self.request, &text).await;
        self.tally.took[1] += start.elapsed();
        let scored = self.reviewed(scored)?;
        self.tally.read += u32::try_from(scored.len()).unwrap_or(u32::MAX);
        self.written[candidate].scored = scored;
        Ok(&self.written[candidate].scored)
    }

    /// The reviewer's answer when it is asked in words; `None`: no clear one.
    pub(super) async fn ask(&mut self, candidate: usize) -> Result<Option<String>, BackendError> {
        let start = Instant::now();
        let request = self.question(&self.written[candidate].text)?;
        let mut said = String::new();
        let each = |event: Event| {
            said.push_str(&event.text);
            async { true }
        };
        let outcome = relay(self.spec.reviewer.as_ref(), request, each).await;
        self.tally.took[1] += start.elapsed();
        let usage = self.reviewed(outcome)?.usage;
        self.tally.decoded += usage.completion_tokens;
        self.tally.read += usage.prompt_tokens;
        Ok(strictly(&said))
    }

    /// The candidate is the answer.
    pub(super) async fn approve(&mut self, candidate: usize) {
        self.pass(candidate, Ending::Approved).await;
        self.spec.fleet[self.written[candidate].member].1.approved.fetch_add(1, Ordering::Relaxed);
    }

    /// The first `keep` tokens of a scored candidate stay, and the reviewer goes on; false where it cannot.
    pub(super) async fn correct(&mut self, candidate: usize, keep: usize) -> bool {
        let scored = &self.written[candidate].scored;
        let able = self.spec.reviewer.capabilities().has(Capabilities::RESUME.and(Capabilities::VERIFY));
        if keep == 0 || keep > scored.len() || !able {
            return false;
        }
        let (start, all) = (Instant::now(), scored.len());
        let kept = scored[..keep].iter().map(|scored| scored.token).collect();
        let done = self.go_on(kept).await;
        self.tally.took[2] += start.elapsed();
        match self.reviewed(done) {
            Ok((outcome, decoded)) => {
                self.tally.decoded += decoded;
                self.tally.kept = keep as f64 / all as f64;
                self.end(outcome, Ending::Corrected, Some(candidate));
            }
            // Nothing else can follow what the client may have.
            Err(error) if self.begun => self.failure = Some(error),
            Err(error) => {
                tracing::warn!(%error, "a correction was not possible");
                return self.is_over();
            }
        }
        true
    }

    /// The reviewer answers itself.
    pub(super) async fn rewrite(&mut self) {
        let start = Instant::now();
        let (sink, mut begun) = (self.sink.clone(), false);
        let each = |event: Event| {
            begun = true;
            let sink = sink.clone();
            async move { sink.send(event).await.is_ok() }
        };
        let done = tokio::select! {
            done = relay(self.spec.reviewer.as_ref(), (*self.request).clone(), each) => done,
            () = self.sink.closed() => Err(BackendError::Cancelled),
        };
        self.begun |= begun;
        self.tally.took[2] += start.elapsed();
        match self.reviewed(done) {
            Ok(outcome) => {
                self.tally.decoded += outcome.usage.completion_tokens;
                self.tally.read += outcome.usage.prompt_tokens;
                self.end(outcome, Ending::Rejected, None);
            }
            Err(error) => self.failure = Some(error),
        }
    }

    /// Passes a candidate on as it is.
    async fn pass(&mut self, candidate: usize, ending: Ending) {
        let text = self.written[candidate].text.clone();
        let outcome = self.written[candidate].outcome.clone();
        if self.sink.send(Event { text, logprobs: Vec::new() }).await.is_err() {
            self.failure = Some(BackendError::Cancelled);
        }
        self.tally.kept = 1.0;
        self.end(outcome, ending, Some(candidate));
    }

    fn end(&mut self, outcome: Outcome, ending: Ending, candidate: Option<usize>) {
        let writer = candidate.map(|candidate| &self.spec.fleet[self.written[candidate].member].0);
        self.tally.writer = writer.map(|backend| backend.name().to_owned());
        self.tally.ending = Some(ending);
        self.outcome = Some(outcome);
    }

    /// Generates behind tokens of a candidate; how many came after them.
    async fn go_on(&mut self, kept: Vec<u32>) -> Result<(Outcome, u32), BackendError> {
        let task = self.spec.reviewer.read(&self.request).await?;
        let left = Left { prompt: task.prompt, output: kept.clone(), max_tokens: task.max_tokens };
        let opened = self.spec.reviewer.open_target(&self.request, Some(&left)).await?;
        let mut output = Output::new(&opened, self.sink.clone());
        let mut target = opened.session;
        self.begun = true;
        let committed = kept.iter().map(|token| Committed { token: *token, logprobs: None }).collect();
        output.commit(&Verified { committed, ..Verified::default() }, target.as_ref()).await?;
        if !output.is_over() {
            decode_to_end(target.as_mut(), &mut output).await?;
        }
        let decoded = output.tokens().len().saturating_sub(kept.len());
        let (finish, usage): (Finish, Usage) = output.end();
        let outcome = Outcome { finish, usage, report: crate::types::Report::default() };
        Ok((outcome, u32::try_from(decoded).unwrap_or(u32::MAX)))
    }

    /// Notes the reviewer's failure: a lost one ends the request, as the script wants it.
    fn reviewed<T>(&mut self, done: Result<T, BackendError>) -> Result<T, BackendError> {
        if let Err(error) = &done
            && (error.is_loss() || matches!(error, BackendError::Cancelled))
        {
            self.failure = Some(error.clone());
        }
        done
    }

    /// Where the reviewer is lost and the script wants that, passes a candidate on without a review.
    pub(super) async fn pass_unreviewed(&mut self) {
        let lost = self.failure.as_ref().is_some_and(BackendError::is_loss);
        let may = lost && !self.begun && self.spec.on_lost == OnReviewerLost::PassLabelled;
        let whole = (0..self.written.len()).find(|index| !self.written[*index].text.is_empty());
        if let Some(candidate) = whole.filter(|_| may && self.outcome.is_none()) {
            self.failure = None;
            self.pass(candidate, Ending::Unreviewed).await;
        }
    }

    /// The request by which the reviewer is asked about `answer`.
    fn question(&self, answer: &str) -> Result<Request, BackendError> {
        let question = self.request.prompt.text();
        let asked = self.spec.policy.as_ref().and_then(|slot| slot.current().prompt().map(str::to_owned));
        let template = asked.unwrap_or_else(|| self.spec.prompt.clone());
        // In one pass, so that what an answer says is never taken for a place to fill in.
        let text = filled(&template, &question, answer);
        let message = [("role", Value::from("user")), ("content", Value::from(text))];
        let message = Message(message.map(|(key, value)| (key.to_owned(), value)).into_iter().collect());
        let schema = json!({"type": "object", "properties": {"verdict": {"enum": ["approve", "correct", "reject"]}},
            "required": ["verdict"], "additionalProperties": false});
        let spec = SamplingSpec { temperature: 0.0, ..SamplingSpec::default() };
        let sampling = Sampling::new(spec).map_err(|error| BackendError::failed("the gate", error))?;
        Ok(Request {
            id: format!("{}-review", self.request.id),
            prompt: Prompt::Chat(vec![message]),
            sampling,
            max_tokens: Some(24),
            format: Format::JsonSchema(schema),
            ..Request::default()
        })
    }
}
