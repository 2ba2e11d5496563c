//! One request as a gate drives it: the fleet's answers, what the reviewer thinks of them, and the end.
//!
//! Invariant: what the client has is `given`, the beginning of one candidate; the rest goes to it once, with
//! `ending`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tightwad_core::{
    BackendError, Event, OnReviewerLost, Outcome, Request, Scored, SharedBackend, Sink, Ways, relay,
};
use tokio::task::JoinSet;

use crate::gate::cache::ReviewCache;
use crate::gate::judgement::{question, strictly};
use crate::gate::policy::GatePolicyPlugin;

#[cfg(test)]
mod tests;

/// How a member of the fleet has done.
#[derive(Debug, Default)]
pub struct MemberCounts {
    /// Answers that it wrote.
    pub written: AtomicU32,
    /// Those of them that were approved unchanged.
    pub approved: AtomicU32,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
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
    pub(crate) fn name(self) -> &'static str {
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
pub(crate) struct ReviewTally {
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
    /// Tokens that the client had before the review was over.
    pub passed: u32,
    /// Reviews that had been made for another request.
    pub cached: u32,
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
    /// Whose verdict counts in place of the gate's own, to the request's end.
    pub policy: Option<Arc<GatePolicyPlugin>>,
    /// What happens when the reviewer is lost.
    pub on_lost: OnReviewerLost,
    /// Reviews that were made already.
    pub cache: Option<Arc<ReviewCache>>,
}

/// An answer that a member wrote.
pub(crate) struct Written {
    pub member: usize,
    pub text: String,
    pub outcome: Outcome,
    pub took: Duration,
    /// The reviewer's tokens of it that were scored: the first ones.
    pub(crate) scored: Vec<Scored>,
    /// Those are all.
    whole: bool,
}

impl Written {
    fn new(member: usize, text: String, outcome: Outcome, took: Duration) -> Self {
        Self { member, text, outcome, took, scored: Vec::new(), whole: false }
    }
}

/// What the client has before the end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Given {
    pub candidate: usize,
    /// The reviewer's tokens.
    pub tokens: usize,
    /// Their text.
    pub bytes: usize,
}

/// A request in the hands of a gate.
pub struct ReviewTask {
    pub(crate) spec: TaskSpec,
    pub(crate) request: Arc<Request>,
    pub(crate) sink: Sink,
    pub(crate) given: Option<Given>,
    /// The reviewer's own words may have gone to the client.
    pub(crate) begun: bool,
    pub(crate) written: Vec<Written>,
    pub(crate) outcome: Option<Outcome>,
    pub(crate) failure: Option<BackendError>,
    pub(crate) tally: ReviewTally,
}

impl ReviewTask {
    /// A task; what is passed on goes to `sink`.
    #[must_use]
    pub fn new(spec: TaskSpec, request: Arc<Request>, sink: Sink) -> Self {
        let (written, tally) = (Vec::new(), ReviewTally::default());
        let (given, begun, outcome, failure) = (None, false, None, None);
        Self { spec, request, sink, given, begun, written, outcome, failure, tally }
    }

    /// True when nothing more can be done.
    pub(crate) fn is_over(&self) -> bool {
        self.failure.is_some() || self.outcome.is_some()
    }

    /// Lets members write, until `enough` are done; the numbers of the new candidates.
    pub(crate) async fn write(&mut self, members: &[usize], enough: usize) -> std::ops::Range<usize> {
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
                    self.written.push(Written::new(member, text, outcome, took));
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

    /// The reviewer's probabilities of a candidate's first `tokens` tokens.
    pub(crate) async fn score(&mut self, candidate: usize, tokens: usize) -> Result<&[Scored], BackendError> {
        let start = Instant::now();
        let Written { text, scored, whole, .. } = &self.written[candidate];
        let (known, reviewer, cache) = (scored.len(), &self.spec.reviewer, self.spec.cache.as_ref());
        if !whole && known < tokens {
            let key = cache.and_then(|cache| cache.key(&self.request, text, [reviewer.name(), ""]));
            if let Some(found) = cache.and_then(|cache| cache.scores(key.as_ref())) {
                self.tally.cached += 1;
                (self.written[candidate].scored, self.written[candidate].whole) = (found.to_vec(), true);
            } else {
                let new = match reviewer.scorer() {
                    Ok(scorer) => scorer.score(&self.request, text, known..tokens).await,
                    Err(error) => Err(error),
                };
                self.tally.took[1] += start.elapsed();
                let new = self.reviewed(new)?;
                self.tally.read += u32::try_from(new.len()).unwrap_or(u32::MAX);
                let written = &mut self.written[candidate];
                written.whole = new.len() < tokens - known;
                written.scored.extend(new);
                if let Some(cache) = self.spec.cache.as_ref().filter(|_| written.whole) {
                    cache.keep_scores(key, &written.scored);
                }
            }
        }
        let scored = &self.written[candidate].scored;
        Ok(&scored[..tokens.min(scored.len())])
    }

    /// The reviewer's answer when it is asked in words; `None`: no clear one.
    pub(crate) async fn ask(&mut self, candidate: usize) -> Result<Option<String>, BackendError> {
        let start = Instant::now();
        let asked = self.spec.policy.as_ref().and_then(|policy| policy.prompt().map(str::to_owned));
        let template = asked.unwrap_or_else(|| self.spec.prompt.clone());
        let (text, reviewer) = (&self.written[candidate].text, &self.spec.reviewer);
        let cache = self.spec.cache.clone();
        let key =
            cache.as_ref().and_then(|cache| cache.key(&self.request, text, [reviewer.name(), &template]));
        if let Some(word) = cache.as_ref().and_then(|cache| cache.word(key.as_ref())) {
            self.tally.cached += 1;
            return Ok(word.as_deref().map(str::to_owned));
        }
        let request = question(&self.request, &template, text)?;
        let mut said = String::new();
        let each = |event: Event| {
            said.push_str(&event.text);
            async { true }
        };
        let outcome = relay(reviewer.as_ref(), request, each).await;
        self.tally.took[1] += start.elapsed();
        let usage = self.reviewed(outcome)?.usage;
        self.tally.decoded += usage.completion_tokens;
        self.tally.read += usage.prompt_tokens;
        let word = strictly(&said);
        if let Some(cache) = cache {
            cache.keep_word(key, word.as_deref());
        }
        Ok(word)
    }

    /// The candidate is the answer; false where the client has the beginning of another one.
    pub(crate) async fn approve(&mut self, candidate: usize) -> bool {
        if self.given.is_some_and(|given| given.candidate != candidate) {
            return false;
        }
        self.finish(candidate, Ending::Approved).await;
        self.spec.fleet[self.written[candidate].member].1.approved.fetch_add(1, Ordering::Relaxed);
        true
    }

    /// Passes a candidate on as it is, from where the client is.
    async fn finish(&mut self, candidate: usize, ending: Ending) {
        let from = self.given.map_or(0, |given| given.bytes);
        let text = self.written[candidate].text[from..].to_owned();
        let outcome = self.written[candidate].outcome.clone();
        if !text.is_empty() && self.sink.send(Event { text, logprobs: Vec::new() }).await.is_err() {
            self.failure = Some(BackendError::Cancelled);
        }
        self.tally.kept = 1.0;
        self.end(outcome, ending, Some(candidate));
    }

    pub(crate) fn end(&mut self, outcome: Outcome, ending: Ending, candidate: Option<usize>) {
        let writer = candidate.map(|candidate| &self.spec.fleet[self.written[candidate].member].0);
        self.tally.writer = writer.map(|backend| backend.name().to_owned());
        self.tally.ending = Some(ending);
        self.outcome = Some(outcome);
    }

    /// Notes the reviewer's failure: a lost one ends the request, as the script wants it.
    pub(crate) fn reviewed<T>(&mut self, done: Result<T, BackendError>) -> Result<T, BackendError> {
        if let Err(error) = &done
            && (error.is_loss() || matches!(error, BackendError::Cancelled))
        {
            self.failure = Some(error.clone());
        }
        done
    }

    /// Where the reviewer is lost and the script wants that, passes a candidate on without a review.
    pub(crate) async fn pass_unreviewed(&mut self) {
        let lost = self.failure.as_ref().is_some_and(BackendError::is_loss);
        let may = lost && !self.begun && self.spec.on_lost == OnReviewerLost::PassLabelled;
        let first = (0..self.written.len()).find(|index| !self.written[*index].text.is_empty());
        let candidate = self.given.map(|given| given.candidate).or(first);
        if let Some(candidate) = candidate.filter(|_| may && self.outcome.is_none()) {
            self.failure = None;
            self.finish(candidate, Ending::Unreviewed).await;
        }
    }
}
