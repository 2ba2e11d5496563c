//! Backends in order: when one is lost, the next goes on from the last committed token, in the same
//! stream.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;

use crate::backend::{Backend, SharedBackend, Sink};
use crate::capabilities::Capabilities;
use crate::error::BackendError;
use crate::event::Outcome;
use crate::facts::{Load, ModelFacts};
use crate::follow::{Followed, Successor};
use crate::output::generate_plainly;
use crate::request::Request;
use crate::session::{Drafter, Left, OpenTarget, Task, Tokenizer};
use crate::tokens::Scored;

/// The first backend answers; the others stand by, in order.
pub struct Fallback {
    first: SharedBackend,
    others: Vec<SharedBackend>,
}

impl Fallback {
    /// Stands `others` by for `first`; all of them go on from its tokens, with the same vocabulary.
    #[must_use]
    pub fn new(first: SharedBackend, others: Vec<SharedBackend>) -> Self {
        Self { first, others }
    }

    fn order(&self) -> impl Iterator<Item = &SharedBackend> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// The answer of the first that is not lost.
    async fn first_answer<'a, T, F>(&'a self, ask: impl Fn(&'a SharedBackend) -> F) -> Result<T, BackendError>
    where
        F: Future<Output = Result<T, BackendError>>,
    {
        let mut last = None;
        for backend in self.order() {
            match ask(backend).await {
                Err(error) if error.is_loss() => {
                    tracing::warn!(backend = backend.name(), %error, "lost; asking the next one");
                    last = Some(error);
                }
                other => return other,
            }
        }
        Err(last.unwrap_or_else(|| BackendError::failed(self.name(), "there is no backend")))
    }
}

#[async_trait]
impl Backend for Fallback {
    fn name(&self) -> &str {
        self.first.name()
    }

    /// What all of them can do.
    fn capabilities(&self) -> Capabilities {
        self.others.iter().fold(self.first.capabilities(), |all, one| all.common(one.capabilities()))
    }

    fn vocabulary(&self) -> Option<[u8; 32]> {
        self.first.vocabulary()
    }

    fn facts(&self) -> Option<ModelFacts> {
        self.first.facts()
    }

    /// A request must fit all of them.
    fn context(&self) -> Option<u32> {
        self.order().filter_map(|backend| backend.context()).min()
    }

    fn load(&self) -> Load {
        self.first.load()
    }

    fn tokenizer(&self) -> Option<Arc<dyn Tokenizer>> {
        self.first.tokenizer()
    }

    async fn generate(&self, request: Request, sink: Sink) -> Result<Outcome, BackendError> {
        generate_plainly(self, request, sink).await
    }

    async fn read(&self, request: &Arc<Request>) -> Result<Task, BackendError> {
        self.first_answer(|backend| backend.read(request)).await
    }

    async fn open_target(
        &self,
        request: &Arc<Request>,
        left: Option<&Left>,
    ) -> Result<OpenTarget, BackendError> {
        let mut rest: VecDeque<SharedBackend> = self.order().cloned().collect();
        let mut last = None;
        while let Some(backend) = rest.pop_front() {
            match backend.open_target(request, left).await {
                Err(error) if error.is_loss() && !rest.is_empty() => {
                    tracing::warn!(backend = backend.name(), %error, "lost; asking the next one");
                    last = Some(error);
                }
                Err(error) => return Err(error),
                Ok(opened) => return Ok(self.follow(opened, &backend, rest, left)),
            }
        }
        Err(last.unwrap_or_else(|| BackendError::failed(self.name(), "there is no backend")))
    }

    async fn open_drafter(&self, task: &Task) -> Result<Box<dyn Drafter>, BackendError> {
        self.first_answer(|backend| backend.open_drafter(task)).await
    }

    async fn score(
        &self,
        request: &Arc<Request>,
        answer: &str,
        part: Range<usize>,
    ) -> Result<Vec<Scored>, BackendError> {
        self.first_answer(|backend| backend.score(request, answer, part.clone())).await
    }
}

impl Fallback {
    fn follow(
        &self,
        opened: OpenTarget,
        backend: &SharedBackend,
        rest: VecDeque<SharedBackend>,
        left: Option<&Left>,
    ) -> OpenTarget {
        let weights = |backend: &SharedBackend| backend.facts().map(|facts| facts.weights);
        let others = Others {
            request: opened.task.request.clone(),
            weights: weights(&self.first),
            // Nothing was committed yet: whoever answers now is the one whose answer it is, but only
            // the first one is what the script promised.
            exact: weights(&self.first) == weights(backend),
            rest,
        };
        Followed::open(opened, Box::new(others), left)
    }
}

/// The backends that stand by.
struct Others {
    request: Arc<Request>,
    /// Digest of the weights that the script promised.
    weights: Option<String>,
    exact: bool,
    rest: VecDeque<SharedBackend>,
}

#[async_trait]
impl Successor for Others {
    async fn next(&mut self, lost: BackendError, left: &Left) -> Result<OpenTarget, BackendError> {
        let mut error = lost;
        while error.is_loss() {
            let Some(backend) = self.rest.pop_front() else { return Err(error) };
            tracing::warn!(
                request = self.request.id,
                committed = left.output.len(),
                next = backend.name(),
                %error,
                "the target is lost; the next one goes on"
            );
            match backend.open_target(&self.request, Some(left)).await {
                Ok(opened) => {
                    self.exact &= backend.facts().map(|facts| facts.weights) == self.weights;
                    return Ok(opened);
                }
                Err(next) => error = next,
            }
        }
        Err(error)
    }

    fn is_exact(&self) -> bool {
        self.exact
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Events, FakeModel};

    fn fallback(models: Vec<FakeModel>) -> Fallback {
        let mut models = models.into_iter().map(|model| Arc::new(model) as SharedBackend);
        Fallback::new(models.next().unwrap(), models.collect())
    }

    #[tokio::test]
    async fn a_stream_goes_on_with_the_backend_that_stands_by() {
        let lost = FakeModel::new("first", "one two three").failing_after(5);
        let standby = FakeModel::new("second", "one two three");
        let (sink, mut events) = Events::new();
        let outcome = fallback(vec![lost, standby]).generate(Request::default(), sink).await.unwrap();
        assert_eq!(events.text(), "one two three");
        assert_eq!(outcome.usage.completion_tokens, 13);
    }

    #[tokio::test]
    async fn what_cannot_be_opened_is_passed_over_until_none_is_left() {
        let lost = |name: &str| FakeModel::new(name, "x").failing_after(0);
        let (sink, mut events) = Events::new();
        let both = fallback(vec![lost("first"), lost("second"), FakeModel::new("third", "ok")]);
        both.generate(Request::default(), sink).await.unwrap();
        assert_eq!(events.text(), "ok");
        let (sink, _events) = Events::new();
        let none = fallback(vec![lost("first"), lost("second")]);
        let error = none.generate(Request::default(), sink).await.unwrap_err();
        assert!(error.to_string().contains("is lost"), "{error}");
    }

    #[tokio::test]
    async fn a_score_is_asked_of_the_next_backend_where_the_first_is_lost() {
        let lost = FakeModel::new("first", "x").failing_after(0);
        let scored = fallback(vec![lost, FakeModel::new("second", "abc")]);
        let scores = scored.score(&Arc::new(Request::default()), "abd", 1..3).await.unwrap();
        assert_eq!(scores.iter().map(|score| score.rank).collect::<Vec<_>>(), [0, 10]);
    }
}
