//! A backend with standbys: when a backend is lost, the next one continues the stream from the last committed token.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;

use crate::backend::{Backend, DrafterSource, Generator, Scorer, SharedBackend, Sink, TargetSource};
use crate::error::BackendError;
use crate::event::Outcome;
use crate::facts::{Load, ModelFacts};
use crate::failover::{FailoverTarget, StandbySource};
use crate::health::Health;
use crate::output::generate_by_decoding;
use crate::request::Request;
use crate::session::{Drafter, OpenedTarget, PreparedRequest, ResumePoint, Tokenizer};
use crate::tokens::TokenScore;

/// A primary backend and its standbys, in order.
pub struct Fallback {
    primary: SharedBackend,
    standbys: Vec<SharedBackend>,
}

impl Fallback {
    /// Adds `standbys` to `primary`. All backends must have the same vocabulary and resume from each other's tokens.
    #[must_use]
    pub fn new(primary: SharedBackend, standbys: Vec<SharedBackend>) -> Self {
        Self { primary, standbys }
    }

    /// The primary, then the standbys in order.
    fn backends(&self) -> impl Iterator<Item = &SharedBackend> {
        std::iter::once(&self.primary).chain(&self.standbys)
    }

    /// True when all backends pass `test`.
    fn all_backends(&self, test: impl Fn(&dyn Backend) -> bool) -> bool {
        self.backends().all(|backend| test(backend.as_ref()))
    }

    /// True when the targets of all backends pass `test`.
    fn all_targets(&self, test: impl Fn(&dyn TargetSource) -> bool) -> bool {
        self.all_backends(|backend| backend.as_target().is_some_and(&test))
    }

    /// The result of `call` on the first backend that is not lost.
    async fn first_result<'a, T, F>(
        &'a self,
        call: impl Fn(&'a SharedBackend) -> F,
    ) -> Result<T, BackendError>
    where
        F: Future<Output = Result<T, BackendError>>,
    {
        let mut last_error = None;
        for backend in self.backends() {
            match call(backend).await {
                Err(error) if error.allows_failover() => {
                    tracing::warn!(backend = backend.name(), %error, "backend is lost; trying the next one");
                    last_error = Some(error);
                }
                other => return other,
            }
        }
        Err(last_error.unwrap_or_else(|| BackendError::failed(self.name(), "no backend is left")))
    }

    /// Adds `standbys` to the target that `backend` opened.
    fn with_standbys(
        &self,
        opened: OpenedTarget,
        backend: &SharedBackend,
        standbys: VecDeque<SharedBackend>,
        resume_point: Option<&ResumePoint>,
    ) -> OpenedTarget {
        let weights = |backend: &SharedBackend| backend.facts().map(|facts| facts.weights);
        let source = Standbys {
            request: opened.prepared.request.clone(),
            weights: weights(&self.primary),
            // The script promises the tokens of the primary. Only targets with its weights are exact.
            exact: weights(&self.primary) == weights(backend),
            standbys,
        };
        FailoverTarget::open(opened, Box::new(source), resume_point)
    }
}

/// A fallback has a role if all its backends have the role.
impl Backend for Fallback {
    fn name(&self) -> &str {
        self.primary.name()
    }

    fn vocabulary(&self) -> Option<[u8; 32]> {
        self.primary.vocabulary()
    }

    fn facts(&self) -> Option<ModelFacts> {
        self.primary.facts()
    }

    /// The shortest context of all backends, because each backend may have to take over the request.
    fn context(&self) -> Option<u32> {
        self.backends().filter_map(|backend| backend.context()).min()
    }

    fn load(&self) -> Load {
        self.primary.load()
    }

    /// One backend suffices.
    fn health(&self) -> Health {
        Health::best(self.backends().map(|backend| backend.health()))
    }

    fn as_generator(&self) -> Option<&dyn Generator> {
        if self.all_backends(|backend| backend.as_generator().is_some()) { Some(self) } else { None }
    }

    fn as_target(&self) -> Option<&dyn TargetSource> {
        if self.all_targets(|_| true) { Some(self) } else { None }
    }

    fn as_drafter(&self) -> Option<&dyn DrafterSource> {
        if self.all_backends(|backend| backend.as_drafter().is_some()) { Some(self) } else { None }
    }

    fn as_scorer(&self) -> Option<&dyn Scorer> {
        if self.all_backends(|backend| backend.as_scorer().is_some()) { Some(self) } else { None }
    }
}

#[async_trait]
impl Generator for Fallback {
    async fn generate(&self, request: Request, sink: Sink) -> Result<Outcome, BackendError> {
        generate_by_decoding(self, request, sink).await
    }
}

#[async_trait]
impl TargetSource for Fallback {
    fn resumes(&self) -> bool {
        self.all_targets(|target| target.resumes())
    }

    fn tokenizer(&self) -> Option<Arc<dyn Tokenizer>> {
        self.primary.as_target()?.tokenizer()
    }

    async fn prepare(&self, request: &Arc<Request>) -> Result<PreparedRequest, BackendError> {
        self.first_result(|backend| async move { backend.target()?.prepare(request).await }).await
    }

    async fn open_target(
        &self,
        request: &Arc<Request>,
        resume_point: Option<&ResumePoint>,
    ) -> Result<OpenedTarget, BackendError> {
        let mut untried: VecDeque<SharedBackend> = self.backends().cloned().collect();
        let mut last_error = None;
        while let Some(backend) = untried.pop_front() {
            match open_target(&backend, request, resume_point).await {
                Err(error) if error.allows_failover() && !untried.is_empty() => {
                    tracing::warn!(backend = backend.name(), %error, "backend is lost; trying the next one");
                    last_error = Some(error);
                }
                Err(error) => return Err(error),
                Ok(opened) => return Ok(self.with_standbys(opened, &backend, untried, resume_point)),
            }
        }
        Err(last_error.unwrap_or_else(|| BackendError::failed(self.name(), "no backend is left")))
    }
}

#[async_trait]
impl DrafterSource for Fallback {
    async fn open_drafter(&self, request: &PreparedRequest) -> Result<Box<dyn Drafter>, BackendError> {
        self.first_result(|backend| async move { backend.drafter()?.open_drafter(request).await }).await
    }
}

#[async_trait]
impl Scorer for Fallback {
    async fn score(
        &self,
        request: &Arc<Request>,
        answer: &str,
        range: Range<usize>,
    ) -> Result<Vec<TokenScore>, BackendError> {
        self.first_result(|backend| {
            let range = range.clone();
            async move { backend.scorer()?.score(request, answer, range).await }
        })
        .await
    }
}

async fn open_target(
    backend: &SharedBackend,
    request: &Arc<Request>,
    resume_point: Option<&ResumePoint>,
) -> Result<OpenedTarget, BackendError> {
    backend.target()?.open_target(request, resume_point).await
}

/// The standbys of one request.
struct Standbys {
    request: Arc<Request>,
    /// The digest of the primary's weights.
    weights: Option<String>,
    exact: bool,
    standbys: VecDeque<SharedBackend>,
}

#[async_trait]
impl StandbySource for Standbys {
    async fn open_next(
        &mut self,
        mut error: BackendError,
        resume_point: &ResumePoint,
    ) -> Result<OpenedTarget, BackendError> {
        while error.allows_failover() {
            let Some(backend) = self.standbys.pop_front() else { return Err(error) };
            tracing::warn!(
                request = self.request.id,
                committed = resume_point.output.len(),
                next = backend.name(),
                %error,
                "target is lost; the next backend takes over"
            );
            match open_target(&backend, &self.request, Some(resume_point)).await {
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
    async fn standby_continues_the_stream() {
        let lost = FakeModel::new("first", "one two three").failing_after(5);
        let standby = FakeModel::new("second", "one two three");
        let (sink, mut events) = Events::new();
        let outcome = fallback(vec![lost, standby]).generate(Request::default(), sink).await.unwrap();
        assert_eq!(events.text(), "one two three");
        assert_eq!(outcome.usage.completion_tokens, 13);
    }

    #[tokio::test]
    async fn fallback_skips_backends_that_cannot_be_opened() {
        let lost = |name: &str| FakeModel::new(name, "x").failing_after(0);
        let (sink, mut events) = Events::new();
        let usable = fallback(vec![lost("first"), lost("second"), FakeModel::new("third", "ok")]);
        usable.generate(Request::default(), sink).await.unwrap();
        assert_eq!(events.text(), "ok");
        let (sink, _events) = Events::new();
        let unusable = fallback(vec![lost("first"), lost("second")]);
        let error = unusable.generate(Request::default(), sink).await.unwrap_err();
        assert!(error.to_string().contains("is lost"), "{error}");
    }

    #[tokio::test]
    async fn standby_scores_when_the_primary_is_lost() {
        let lost = FakeModel::new("first", "x").failing_after(0);
        let scored = fallback(vec![lost, FakeModel::new("second", "abc")]);
        let scores = scored.score(&Arc::new(Request::default()), "abd", 1..3).await.unwrap();
        assert_eq!(scores.iter().map(|score| score.rank).collect::<Vec<_>>(), [0, 10]);
    }

    #[test]
    fn fallback_has_a_role_if_all_backends_have_it() {
        let model = || FakeModel::new("model", "x");
        let two = |ability| {
            let pairs = [[model().lacking(ability), model()], [model(), model().lacking(ability)]];
            pairs.map(|pair| fallback(pair.into()))
        };
        let full = fallback(vec![model(), model()]);
        let target = full.target().unwrap();
        assert!(full.generator().is_ok() && full.drafter().is_ok() && full.scorer().is_ok());
        assert!(target.resumes());
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
    fn fallback_resumes_if_all_targets_do() {
        let model = || FakeModel::new("model", "x");
        let mixed = fallback(vec![model(), model().lacking(Ability::Resume)]);
        assert!(!mixed.target().unwrap().resumes());
    }

    #[test]
    fn missing_role_is_named_by_its_verb() {
        let missing = [Ability::Generate, Ability::Target, Ability::Draft, Ability::Score];
        let bare = missing.into_iter().fold(FakeModel::new("bare", "x"), FakeModel::lacking);
        let message = |error: Option<BackendError>| error.unwrap().to_string();
        assert_eq!(message(bare.generator().err()), "bare cannot generate");
        assert_eq!(message(Backend::target(&bare).err()), "bare cannot verify");
        assert_eq!(message(Backend::drafter(&bare).err()), "bare cannot propose");
        assert_eq!(message(bare.scorer().err()), "bare cannot score");
    }
}
