//! Replays answers and their scores. Greedy answers are deterministic, so one computation serves all gates.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tightwad_core::{
    Backend, BackendError, DrafterSource, Event, Generator, Load, ModelFacts, Outcome, Request, Scorer,
    SharedBackend, Sink, TargetSource, TokenScore, relay,
};
use tokio::sync::Mutex;

/// An answer and its computing time.
struct CachedAnswer {
    text: String,
    outcome: Outcome,
    time: Duration,
}

/// Scores of all tokens of an answer, and their computing time.
struct CachedScores {
    scores: Vec<TokenScore>,
    time: Duration,
}

/// A backend that replays answers and scores of complete answers. Other calls go to the inner backend.
pub(crate) struct Replay {
    inner: SharedBackend,
    /// Answers by question.
    answers: Mutex<HashMap<String, Arc<CachedAnswer>>>,
    /// Scores by question and answer.
    reviews: Mutex<HashMap<(String, String), Arc<CachedScores>>>,
    replayed_nanos: AtomicU64,
}

impl Replay {
    /// Wraps `inner`. All requests must be greedy.
    pub(crate) fn new(inner: SharedBackend) -> Self {
        let (answers, reviews) = (Mutex::default(), Mutex::default());
        Self { inner, answers, reviews, replayed_nanos: AtomicU64::new(0) }
    }

    /// The inner backend.
    pub(crate) fn inner(&self) -> SharedBackend {
        self.inner.clone()
    }

    /// Returns the computing time of the answers and scores that were replayed since the last call.
    pub(crate) fn take_replayed_time(&self) -> Duration {
        Duration::from_nanos(self.replayed_nanos.swap(0, Ordering::Relaxed))
    }

    fn add_replayed_time(&self, time: Duration) {
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.replayed_nanos.fetch_add(nanoseconds, Ordering::Relaxed);
    }
}

impl CachedScores {
    /// The scores of `part`, and their share of the time.
    fn part(&self, part: Range<usize>) -> (Vec<TokenScore>, Duration) {
        let token_count = self.scores.len();
        let part = &self.scores[part.start.min(token_count)..part.end.min(token_count)];
        (part.to_vec(), self.time.mul_f64(part.len() as f64 / token_count.max(1) as f64))
    }
}

impl Backend for Replay {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn vocabulary(&self) -> Option<[u8; 32]> {
        self.inner.vocabulary()
    }

    fn facts(&self) -> Option<ModelFacts> {
        self.inner.facts()
    }

    fn load(&self) -> Load {
        self.inner.load()
    }

    fn as_generator(&self) -> Option<&dyn Generator> {
        if self.inner.as_generator().is_some() { Some(self) } else { None }
    }

    fn as_target(&self) -> Option<&dyn TargetSource> {
        self.inner.as_target()
    }

    fn as_drafter(&self) -> Option<&dyn DrafterSource> {
        self.inner.as_drafter()
    }

    fn as_scorer(&self) -> Option<&dyn Scorer> {
        if self.inner.as_scorer().is_some() { Some(self) } else { None }
    }
}

#[async_trait]
impl Generator for Replay {
    async fn generate(&self, request: Request, sink: Sink) -> Result<Outcome, BackendError> {
        let question = request.prompt.text();
        let cached = self.answers.lock().await.get(&question).cloned();
        if let Some(cached) = cached {
            let event = Event { text: cached.text.clone(), logprobs: Vec::new() };
            sink.send(event).await.map_err(|_| BackendError::Cancelled)?;
            self.add_replayed_time(cached.time);
            return Ok(cached.outcome.clone());
        }
        let (start, mut text) = (Instant::now(), String::new());
        let forward = |event: Event| {
            text.push_str(&event.text);
            let sink = sink.clone();
            async move { sink.send(event).await.is_ok() }
        };
        let outcome = relay(self.inner.as_ref(), request, forward).await?;
        let answer = CachedAnswer { text, outcome: outcome.clone(), time: start.elapsed() };
        self.answers.lock().await.insert(question, Arc::new(answer));
        Ok(outcome)
    }
}

#[async_trait]
impl Scorer for Replay {
    async fn score(
        &self,
        request: &Arc<Request>,
        answer: &str,
        part: Range<usize>,
    ) -> Result<Vec<TokenScore>, BackendError> {
        let key = (request.prompt.text(), answer.to_owned());
        let cached = self.reviews.lock().await.get(&key).cloned();
        if let Some(cached) = cached {
            let (scores, time) = cached.part(part);
            self.add_replayed_time(time);
            return Ok(scores);
        }
        let (start, is_complete) = (Instant::now(), part == (0..usize::MAX));
        let scores = self.inner.scorer()?.score(request, answer, part).await?;
        if is_complete {
            let cached_scores = CachedScores { scores: scores.clone(), time: start.elapsed() };
            self.reviews.lock().await.insert(key, Arc::new(cached_scores));
        }
        Ok(scores)
    }
}
