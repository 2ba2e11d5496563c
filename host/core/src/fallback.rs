//! Backends in order: when one is lost, the next goes on from the last committed token, in the same
//! stream.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;

use crate::backend::{Backend, DrafterSource, Generator, Scorer, SharedBackend, Sink, TargetSource};
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

    /// True when all backends pass `test`.
    fn all(&self, test: impl Fn(&dyn Backend) -> bool) -> bool {
        self.order().all(|backend| test(backend.as_ref()))
    }

    /// True when the targets of all backends pass `test`.
    fn all_targets(&self, test: impl Fn(&dyn TargetSource) -> bool) -> bool {
        self.all(|backend| backend.as_target().is_some_and(&test))
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

/// A fallback has a role where all its backends have that role.
impl Backend for Fallback {
    fn name(&self) -> &str {
        self.first.name()
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

    fn as_generator(&self) -> Option<&dyn Generator> {
        if self.all(|backend| backend.as_generator().is_some()) { Some(self) } else { None }
    }

    fn as_target(&self) -> Option<&dyn TargetSource> {
        if self.all_targets(|_| true) { Some(self) } else { None }
    }

    fn as_drafter(&self) -> Option<&dyn DrafterSource> {
        if self.all(|backend| backend.as_drafter().is_some()) { Some(self) } else { None }
    }

    fn as_scorer(&self) -> Option<&dyn Scorer> {
        if self.all(|backend| backend.as_scorer().is_some()) { Some(self) } else { None }
    }
}

#[async_trait]
impl Generator for Fallback {
    async fn generate(&self, request: Request, sink: Sink) -> Result<Outcome, BackendError> {
        generate_plainly(self, request, sink).await
    }
}

#[async_trait]
impl TargetSource for Fallback {
    fn verifies(&self) -> bool {
        self.all_targets(|target| target.verifies())
    }

    fn resumes(&self) -> bool {
        self.all_targets(|target| target.resumes())
    }

    fn tokenizer(&self) -> Option<Arc<dyn Tokenizer>> {
        self.first.as_target()?.tokenizer()
    }

    async fn read(&self, request: &Arc<Request>) -> Result<Task, BackendError> {
        self.first_answer(|backend| async move { backend.target()?.read(request).await }).await
    }

    async fn open_target(
        &self,
        request: &Arc<Request>,
        left: Option<&Left>,
    ) -> Result<OpenTarget, BackendError> {
        let mut rest: VecDeque<SharedBackend> = self.order().cloned().collect();
        let mut last = None;
        while let Some(backend) = rest.pop_front() {
            match open_target(&backend, request, left).await {
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
}

#[async_trait]
impl DrafterSource for Fallback {
    async fn open_drafter(&self, task: &Task) -> Result<Box<dyn Drafter>, BackendError> {
        self.first_answer(|backend| async move { backend.drafter()?.open_drafter(task).await }).await
    }
}

#[async_trait]
impl Scorer for Fallback {
    async fn score(
        &self,
        request: &Arc<Request>,
        answer: &str,
        part: Range<usize>,
    ) -> Result<Vec<Scored>, BackendError> {
        self.first_answer(|backend| {
            let part = part.clone();
            async move { backend.scorer()?.score(request, answer, part).await }
        })
        .await
    }
}

async fn open_target(
    backend: &SharedBackend,
    request: &Arc<Request>,
    left: Option<&Left>,
) -> Result<OpenTarget, BackendError> {
    backend.target()?.open_target(request, left).await
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
            match open_target(&backend, &self.request, Some(left)).await {
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
    use crate::testing::{Ability, Events, FakeModel};

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

    #[test]
    fn a_role_is_there_where_all_backends_have_it() {
        let model = || FakeModel::new("model", "x");
        let two = |ability| {
            let pairs = [[model().lacking(ability), model()], [model(), model().lacking(ability)]];
            pairs.map(|pair| fallback(pair.into()))
        };
        let full = fallback(vec![model(), model()]);
        let target = full.target().unwrap();
        assert!(full.generator().is_ok() && full.drafter().is_ok() && full.scorer().is_ok());
        assert!(target.verifies() && target.resumes());
        for both in two(Ability::Generate) {
            assert!(both.as_generator().is_none() && both.as_target().is_some());
        }
        for both in two(Ability::Target) {
            assert!(both.as_target().is_none() && both.as_generator().is_some());
        }
        for both in two(Ability::Draft) {
            assert!(both.as_drafter().is_none() && both.as_target().is_some());
        }
        for both in two(Ability::Score) {
            assert!(both.as_scorer().is_none() && both.as_target().is_some());
        }
    }

    #[test]
    fn targets_verify_and_resume_where_all_of_them_do() {
        let model = || FakeModel::new("model", "x");
        let two = |ability| fallback(vec![model(), model().lacking(ability)]);
        let (resuming, verifying) = (two(Ability::Verify), two(Ability::Resume));
        let target = resuming.target().unwrap();
        assert_eq!((target.verifies(), target.resumes()), (false, true));
        let target = verifying.target().unwrap();
        assert_eq!((target.verifies(), target.resumes()), (true, false));
    }

    #[test]
    fn a_missing_role_is_refused_by_its_verb() {
        let missing = [Ability::Generate, Ability::Target, Ability::Draft, Ability::Score];
        let bare = missing.into_iter().fold(FakeModel::new("bare", "x"), FakeModel::lacking);
        let said = |error: Option<BackendError>| error.unwrap().to_string();
        assert_eq!(said(bare.generator().err()), "bare cannot generate");
        assert_eq!(said(Backend::target(&bare).err()), "bare cannot verify");
        assert_eq!(said(Backend::drafter(&bare).err()), "bare cannot propose");
        assert_eq!(said(bare.scorer().err()), "bare cannot score");
    }
}
