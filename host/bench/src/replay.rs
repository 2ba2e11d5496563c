//! Greedy answers, and their scores, that were computed once: the same question brings the same, and need not be
//! asked again for each way to go on with it.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tightwad_core::{
    Backend, BackendError, DrafterSource, Event, Generator, Load, ModelFacts, Outcome, Request, Scored,
    Scorer, SharedBackend, Sink, TargetSource, relay,
};
use tokio::sync::Mutex;

/// An answer, and how long it took.
struct Answered {
    text: String,
    outcome: Outcome,
    took: Duration,
}

/// Scores of all tokens of an answer, and how long they took.
struct Reviewed {
    scores: Vec<Scored>,
    took: Duration,
}

/// A backend that repeats its answers, and its scores of whole answers; everything else is its own.
pub(crate) struct Replay {
    own: SharedBackend,
    /// By question.
    answers: Mutex<HashMap<String, Arc<Answered>>>,
    /// By question and answer.
    reviews: Mutex<HashMap<(String, String), Arc<Reviewed>>>,
    replayed: AtomicU64,
}

impl Replay {
    /// Of a backend that is asked nothing but greedy questions.
    pub(crate) fn new(own: SharedBackend) -> Self {
        let (answers, reviews) = (Mutex::default(), Mutex::default());
        Self { own, answers, reviews, replayed: AtomicU64::new(0) }
    }

    /// Who is asked.
    pub(crate) fn own(&self) -> SharedBackend {
        self.own.clone()
    }

    /// How long that took which was repeated since the last time.
    pub(crate) fn replayed(&self) -> Duration {
        Duration::from_nanos(self.replayed.swap(0, Ordering::Relaxed))
    }

    fn repeats(&self, took: Duration) {
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.replayed.fetch_add(nanoseconds, Ordering::Relaxed);
    }
}

impl Reviewed {
    /// The part that is asked for, and its share of the time.
    fn part(&self, part: Range<usize>) -> (Vec<Scored>, Duration) {
        let all = self.scores.len();
        let part = &self.scores[part.start.min(all)..part.end.min(all)];
        (part.to_vec(), self.took.mul_f64(part.len() as f64 / all.max(1) as f64))
    }
}

impl Backend for Replay {
    fn name(&self) -> &str {
        self.own.name()
    }

    fn vocabulary(&self) -> Option<[u8; 32]> {
        self.own.vocabulary()
    }

    fn facts(&self) -> Option<ModelFacts> {
        self.own.facts()
    }

    fn load(&self) -> Load {
        self.own.load()
    }

    fn as_generator(&self) -> Option<&dyn Generator> {
        if self.own.as_generator().is_some() { Some(self) } else { None }
    }

    fn as_target(&self) -> Option<&dyn TargetSource> {
        self.own.as_target()
    }

    fn as_drafter(&self) -> Option<&dyn DrafterSource> {
        self.own.as_drafter()
    }

    fn as_scorer(&self) -> Option<&dyn Scorer> {
        if self.own.as_scorer().is_some() { Some(self) } else { None }
    }
}

#[async_trait]
impl Generator for Replay {
    async fn generate(&self, request: Request, sink: Sink) -> Result<Outcome, BackendError> {
        let question = request.prompt.text();
        let known = self.answers.lock().await.get(&question).cloned();
        if let Some(known) = known {
            let event = Event { text: known.text.clone(), logprobs: Vec::new() };
            sink.send(event).await.map_err(|_| BackendError::Cancelled)?;
            self.repeats(known.took);
            return Ok(known.outcome.clone());
        }
        let (start, mut text) = (Instant::now(), String::new());
        let each = |event: Event| {
            text.push_str(&event.text);
            let sink = sink.clone();
            async move { sink.send(event).await.is_ok() }
        };
        let outcome = relay(self.own.as_ref(), request, each).await?;
        let answered = Answered { text, outcome: outcome.clone(), took: start.elapsed() };
        self.answers.lock().await.insert(question, Arc::new(answered));
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
    ) -> Result<Vec<Scored>, BackendError> {
        let key = (request.prompt.text(), answer.to_owned());
        let known = self.reviews.lock().await.get(&key).cloned();
        if let Some(known) = known {
            let (scores, took) = known.part(part);
            self.repeats(took);
            return Ok(scores);
        }
        let (start, whole) = (Instant::now(), part == (0..usize::MAX));
        let scores = self.own.scorer()?.score(request, answer, part).await?;
        if whole {
            let reviewed = Reviewed { scores: scores.clone(), took: start.elapsed() };
            self.reviews.lock().await.insert(key, Arc::new(reviewed));
        }
        Ok(scores)
    }
}
