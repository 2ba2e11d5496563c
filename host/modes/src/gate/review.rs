//! One request of a gate: the fleet's candidates, their reviews, and the answer.
//!
//! Invariant: before the end, the client has exactly `released`, the beginning of one candidate. `outcome` is set
//! once the client has the rest.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tightwad_core::{
    BackendError, Event, OnReviewerLost, Outcome, Request, ReviewMethods, SharedBackend, Sink, TokenScore,
    relay,
};
use tokio::task::JoinSet;

use crate::gate::cache::ReviewCache;
use crate::gate::generation_budget::{GenerateError, GenerationBudget};
use crate::gate::judgement::{judge_request, parse_judgement};
use crate::gate::policy::GatePolicy;
use crate::settings::Settings;

#[cfg(test)]
mod tests;

/// The maximum number of calls of the policy for one candidate: it can see more scores each time.
const MAX_POLICY_CALLS_PER_CANDIDATE: u32 = 8;

/// The counts of a member of the fleet.
#[derive(Debug, Default)]
pub struct MemberCounts {
    /// The answers that the member wrote.
    pub written: AtomicU32,
    /// The member's answers that were approved unchanged.
    pub approved: AtomicU32,
}

/// The end of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FinalVerdict {
    /// A candidate is the answer, unchanged.
    Approved,
    /// The reviewer continued after the beginning of a candidate.
    Corrected,
    /// The reviewer answered itself.
    Rejected,
    /// A candidate is the answer without a review, because the reviewer was lost.
    Unreviewed,
}

impl FinalVerdict {
    /// The name in reports and metrics.
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

/// The counts and times of a task.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct ReviewTally {
    /// The end of the request.
    pub verdict: Option<FinalVerdict>,
    /// The member that wrote the answer or its beginning.
    pub writer: Option<String>,
    /// The share of the candidate that stayed in the answer.
    pub kept_share: f64,
    /// Tokens that the reviewer generated: judgements, corrections and its own answers.
    pub generated_tokens: u32,
    /// Tokens that the reviewer processed without generating them: prompts and candidates.
    pub scored_tokens: u32,
    /// Tokens that the client received before the review ended.
    pub released_tokens: u32,
    /// Reviews that came from the cache.
    pub cached_reviews: u32,
    /// The time in which the fleet generated candidates.
    pub generation_time: Duration,
    /// The time of reviews.
    pub review_time: Duration,
    /// The time in which the reviewer corrected or answered.
    pub completion_time: Duration,
}

/// The configuration of a task.
pub struct TaskSpec {
    /// The members of the fleet.
    pub fleet: Vec<(SharedBackend, Arc<MemberCounts>)>,
    /// The reviewer.
    pub reviewer: SharedBackend,
    /// The methods of a review.
    pub review_methods: ReviewMethods,
    /// The prompt that asks the reviewer for a judgement, with the placeholders `{question}` and `{answer}`.
    pub judge_prompt: String,
    /// The driver's settings.
    pub settings: Settings,
    /// The policy that gives verdicts in place of the driver. A later replacement of the plugin does not affect the
    /// task.
    pub policy: Option<Arc<GatePolicy>>,
    /// The reaction to the loss of the reviewer.
    pub on_reviewer_lost: OnReviewerLost,
    /// The cache of earlier reviews.
    pub cache: Option<Arc<ReviewCache>>,
}

/// An answer that a member wrote.
pub(crate) struct Candidate {
    pub member: usize,
    pub text: String,
    pub outcome: Outcome,
    pub elapsed: Duration,
    /// The reviewer's judgement in words, once it was asked. The inner `None` is an unclear reply.
    judgement: Option<Option<String>>,
    policy_calls: u32,
    /// The scores of the candidate's first tokens, in the reviewer's vocabulary.
    pub(crate) scores: Vec<TokenScore>,
    /// True if `scores` has all tokens.
    fully_scored: bool,
}

impl Candidate {
    fn new(member: usize, text: String, outcome: Outcome, elapsed: Duration) -> Self {
        Self {
            member,
            text,
            outcome,
            elapsed,
            judgement: None,
            policy_calls: 0,
            scores: Vec::new(),
            fully_scored: false,
        }
    }
}

/// The beginning of a candidate that the client has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReleasedPrefix {
    pub candidate: usize,
    /// The prefix's length in the reviewer's tokens.
    pub tokens: usize,
    /// The prefix's length in bytes of text.
    pub bytes: usize,
}

/// A request that a gate's driver drives.
pub struct ReviewTask {
    pub(crate) spec: TaskSpec,
    pub(crate) request: Arc<Request>,
    pub(crate) sink: Sink,
    pub(crate) released: Option<ReleasedPrefix>,
    /// True if the client can already have text of the reviewer.
    pub(crate) reviewer_answers: bool,
    pub(crate) candidates: Vec<Candidate>,
    generations: GenerationBudget,
    pub(crate) outcome: Option<Outcome>,
    pub(crate) failure: Option<BackendError>,
    pub(crate) tally: ReviewTally,
}

impl ReviewTask {
    /// A task that answers `request` into `sink`.
    #[must_use]
    pub fn new(spec: TaskSpec, request: Arc<Request>, sink: Sink) -> Self {
        let (candidates, tally) = (Vec::new(), ReviewTally::default());
        let (released, reviewer_answers, outcome, failure) = (None, false, None, None);
        let generations = GenerationBudget::default();
        Self {
            spec,
            request,
            sink,
            released,
            reviewer_answers,
            candidates,
            generations,
            outcome,
            failure,
            tally,
        }
    }

    /// True once the task has an outcome or failed.
    pub(crate) fn is_over(&self) -> bool {
        self.failure.is_some() || self.outcome.is_some()
    }

    /// Lets members write answers at the same time, until `count` answers are complete. Returns the indices of the new
    /// candidates.
    pub(crate) async fn generate(
        &mut self,
        members: &[usize],
        count: usize,
    ) -> Result<std::ops::Range<usize>, GenerateError> {
        self.generations.start(members, self.spec.fleet.len())?;
        let (start, before, mut writing) = (Instant::now(), self.candidates.len(), JoinSet::new());
        for member in members.iter().copied() {
            let Some((backend, _)) = self.spec.fleet.get(member) else { continue };
            let (backend, request) = (backend.clone(), (*self.request).clone());
            writing.spawn(async move {
                let (start, mut text) = (Instant::now(), String::new());
                let on_event = |event: Event| {
                    text.push_str(&event.text);
                    async { true }
                };
                let outcome = relay(backend.as_ref(), request, on_event).await;
                (member, outcome.map(|outcome| (text, outcome)), start.elapsed())
            });
        }
        while self.candidates.len() - before < count {
            let written = tokio::select! {
                written = writing.join_next() => written,
                () = self.sink.closed() => {
                    self.failure = Some(BackendError::Cancelled);
                    break;
                }
            };
            match written {
                None => break,
                Some(Ok((member, Ok((text, outcome)), elapsed))) => {
                    self.spec.fleet[member].1.written.fetch_add(1, Ordering::Relaxed);
                    self.candidates.push(Candidate::new(member, text, outcome, elapsed));
                }
                Some(Ok((member, Err(error), _))) => {
                    let member = self.spec.fleet[member].0.name();
                    tracing::warn!(member, %error, "a member of the fleet failed to write a candidate");
                }
                Some(Err(_)) => {}
            }
        }
        self.tally.generation_time += start.elapsed();
        Ok(before..self.candidates.len())
    }

    /// Returns the scores of a candidate's first `tokens` tokens.
    pub(crate) async fn score(&mut self, index: usize, tokens: usize) -> Result<&[TokenScore], BackendError> {
        let start = Instant::now();
        let Candidate { text, scores, fully_scored, .. } = &self.candidates[index];
        let (scored, reviewer, cache) = (scores.len(), &self.spec.reviewer, self.spec.cache.as_ref());
        if !fully_scored && scored < tokens {
            let key = cache.and_then(|cache| cache.key(&self.request, text, [reviewer.name(), ""]));
            if let Some(cached) = cache.and_then(|cache| cache.scores(key.as_ref())) {
                self.tally.cached_reviews += 1;
                let candidate = &mut self.candidates[index];
                (candidate.scores, candidate.fully_scored) = (cached.to_vec(), true);
            } else {
                let result = match reviewer.scorer() {
                    Ok(scorer) => scorer.score(&self.request, text, scored..tokens).await,
                    Err(error) => Err(error),
                };
                self.tally.review_time += start.elapsed();
                let new_scores = self.record_reviewer_result(result)?;
                self.tally.scored_tokens += u32::try_from(new_scores.len()).unwrap_or(u32::MAX);
                let candidate = &mut self.candidates[index];
                candidate.fully_scored = new_scores.len() < tokens - scored;
                candidate.scores.extend(new_scores);
                if let Some(cache) = self.spec.cache.as_ref().filter(|_| candidate.fully_scored) {
                    cache.insert_scores(key, &candidate.scores);
                }
            }
        }
        let scores = &self.candidates[index].scores;
        Ok(&scores[..tokens.min(scores.len())])
    }

    /// Asks the reviewer in words for its judgement of a candidate, once. `None` if the reply is unclear.
    pub(crate) async fn ask_reviewer(&mut self, index: usize) -> Result<Option<String>, BackendError> {
        if let Some(judgement) = &self.candidates[index].judgement {
            return Ok(judgement.clone());
        }
        let judgement = self.request_judgement(index).await?;
        self.candidates[index].judgement = Some(judgement.clone());
        Ok(judgement)
    }

    async fn request_judgement(&mut self, index: usize) -> Result<Option<String>, BackendError> {
        let start = Instant::now();
        let policy_prompt =
            self.spec.policy.as_ref().and_then(|policy| policy.judge_prompt().map(str::to_owned));
        let template = policy_prompt.unwrap_or_else(|| self.spec.judge_prompt.clone());
        let (text, reviewer) = (&self.candidates[index].text, &self.spec.reviewer);
        let cache = self.spec.cache.clone();
        let key =
            cache.as_ref().and_then(|cache| cache.key(&self.request, text, [reviewer.name(), &template]));
        if let Some(cached) = cache.as_ref().and_then(|cache| cache.judgement(key.as_ref())) {
            self.tally.cached_reviews += 1;
            return Ok(cached.as_deref().map(str::to_owned));
        }
        let request = judge_request(&self.request, &template, text)?;
        let mut reply = String::new();
        let on_event = |event: Event| {
            reply.push_str(&event.text);
            async { true }
        };
        let result = relay(reviewer.as_ref(), request, on_event).await;
        self.tally.review_time += start.elapsed();
        let usage = self.record_reviewer_result(result)?.usage;
        self.tally.generated_tokens += usage.completion_tokens;
        self.tally.scored_tokens += usage.prompt_tokens;
        let judgement = parse_judgement(&reply);
        if let Some(cache) = cache {
            cache.insert_judgement(key, judgement.as_deref());
        }
        Ok(judgement)
    }

    /// Counts a call of the policy for a candidate. Returns false if the candidate has no call left.
    pub(crate) fn count_policy_call(&mut self, index: usize) -> bool {
        let calls = &mut self.candidates[index].policy_calls;
        *calls += 1;
        *calls <= MAX_POLICY_CALLS_PER_CANDIDATE
    }

    /// Makes a candidate the answer. Returns false if the client has the beginning of another candidate.
    pub(crate) async fn approve(&mut self, index: usize) -> bool {
        if self.released.is_some_and(|prefix| prefix.candidate != index) {
            return false;
        }
        self.send_candidate(index, FinalVerdict::Approved).await;
        self.spec.fleet[self.candidates[index].member].1.approved.fetch_add(1, Ordering::Relaxed);
        true
    }

    /// Sends a candidate to the client unchanged, without its released prefix.
    async fn send_candidate(&mut self, index: usize, verdict: FinalVerdict) {
        let released_bytes = self.released.map_or(0, |prefix| prefix.bytes);
        let text = self.candidates[index].text[released_bytes..].to_owned();
        let outcome = self.candidates[index].outcome.clone();
        if !text.is_empty() && self.sink.send(Event { text, logprobs: Vec::new() }).await.is_err() {
            self.failure = Some(BackendError::Cancelled);
        }
        self.tally.kept_share = 1.0;
        self.set_outcome(outcome, verdict, Some(index));
    }

    pub(crate) fn set_outcome(&mut self, outcome: Outcome, verdict: FinalVerdict, candidate: Option<usize>) {
        let writer = candidate.map(|index| &self.spec.fleet[self.candidates[index].member].0);
        self.tally.writer = writer.map(|backend| backend.name().to_owned());
        self.tally.verdict = Some(verdict);
        self.outcome = Some(outcome);
    }

    /// Records the loss of the reviewer, or the disconnection of the client, as the failure of the request.
    pub(crate) fn record_reviewer_result<T>(
        &mut self,
        result: Result<T, BackendError>,
    ) -> Result<T, BackendError> {
        if let Err(error) = &result
            && (error.allows_failover() || matches!(error, BackendError::Cancelled))
        {
            self.failure = Some(error.clone());
        }
        result
    }

    /// If the reviewer is lost and the script allows it, makes a candidate the answer without a review.
    pub(crate) async fn pass_unreviewed(&mut self) {
        let lost = self.failure.as_ref().is_some_and(BackendError::allows_failover);
        let allowed =
            lost && !self.reviewer_answers && self.spec.on_reviewer_lost == OnReviewerLost::PassUnreviewed;
        let first = (0..self.candidates.len()).find(|index| !self.candidates[*index].text.is_empty());
        let candidate = self.released.map(|prefix| prefix.candidate).or(first);
        if let Some(index) = candidate.filter(|_| allowed && self.outcome.is_none()) {
            self.failure = None;
            self.send_candidate(index, FinalVerdict::Unreviewed).await;
        }
    }
}
