//! A factory for tests. Its backends answer with their name and the prompt.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tightwad_core::{
    Backend, BackendError, Drafter, DrafterSource, Event, FinishReason, Generator, OpenedTarget, Outcome,
    PoolSpec, PreparedRequest, Report, Request, ResumePoint, Scorer, SharedBackend, Sink, TargetSource,
    TokenScore, Usage,
};
use tightwad_net::DiscoveredNode;
use tightwad_remote::TextServerSpec;

use crate::factory::{
    ConsensusSpec, Factory, FactoryError, GateSpec, LookupSpec, ModelSpec, NodeBackendSpec, SpeculationSpec,
};

/// The roles of a [`FakeBackend`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Roles {
    /// All roles, like a model.
    All,
    /// Generator and drafter, like a text server.
    GeneratorAndDrafter,
    /// Generator only.
    Generator,
    /// Drafter only.
    Drafter,
}

/// A backend without a model.
pub(crate) struct FakeBackend {
    pub(crate) name: String,
    pub(crate) roles: Roles,
    /// The time of an answer.
    pub(crate) delay: Duration,
}

impl FakeBackend {
    pub(crate) fn shared(name: &str, roles: Roles) -> SharedBackend {
        Arc::new(Self { name: name.to_owned(), roles, delay: Duration::ZERO })
    }
}

impl Backend for FakeBackend {
    fn name(&self) -> &str {
        &self.name
    }

    fn as_generator(&self) -> Option<&dyn Generator> {
        if self.roles == Roles::Drafter { None } else { Some(self) }
    }

    fn as_target(&self) -> Option<&dyn TargetSource> {
        if self.roles == Roles::All { Some(self) } else { None }
    }

    fn as_drafter(&self) -> Option<&dyn DrafterSource> {
        if self.roles == Roles::Generator { None } else { Some(self) }
    }

    fn as_scorer(&self) -> Option<&dyn Scorer> {
        if self.roles == Roles::All { Some(self) } else { None }
    }
}

#[async_trait]
impl Generator for FakeBackend {
    async fn generate(&self, request: Request, sink: Sink) -> Result<Outcome, BackendError> {
        tokio::time::sleep(self.delay).await;
        let prompt = request.prompt.text();
        if prompt.contains("fail") {
            return Err(BackendError::failed(&self.name, "it broke"));
        }
        let text = format!("{}: {prompt}", self.name);
        sink.send(Event { text, logprobs: Vec::new() }).await.map_err(|_| BackendError::Cancelled)?;
        let usage = Usage { prompt_tokens: 3, completion_tokens: 2, cached_tokens: 0 };
        let report = Report { mode: "plain".to_owned(), exact: true, ..Report::default() };
        Ok(Outcome { finish_reason: FinishReason::Stop, usage, report })
    }
}

#[async_trait]
impl TargetSource for FakeBackend {
    fn resumes(&self) -> bool {
        true
    }

    async fn prepare(&self, _: &Arc<Request>) -> Result<PreparedRequest, BackendError> {
        Err(BackendError::unsupported(&self.name, "read tokens"))
    }

    async fn open_target(
        &self,
        _: &Arc<Request>,
        _: Option<&ResumePoint>,
    ) -> Result<OpenedTarget, BackendError> {
        Err(BackendError::unsupported(&self.name, "verify"))
    }
}

#[async_trait]
impl DrafterSource for FakeBackend {
    async fn open_drafter(&self, _: &PreparedRequest) -> Result<Box<dyn Drafter>, BackendError> {
        Err(BackendError::unsupported(&self.name, "propose"))
    }
}

#[async_trait]
impl Scorer for FakeBackend {
    async fn score(
        &self,
        _: &Arc<Request>,
        _: &str,
        _: Range<usize>,
    ) -> Result<Vec<TokenScore>, BackendError> {
        Err(BackendError::unsupported(&self.name, "score"))
    }
}

/// Makes a [`FakeBackend`] for each call. A model with the file name `gone.gguf` fails. Each model with the file name
/// `counted.gguf` has another name.
pub(crate) struct FakeFactory;

/// The number of models with the file name `counted.gguf`.
static COUNTED_MODELS: AtomicU32 = AtomicU32::new(0);

type Made = Result<SharedBackend, FactoryError>;

#[async_trait]
impl Factory for FakeFactory {
    async fn model(&self, spec: ModelSpec) -> Made {
        if spec.path.ends_with("gone.gguf") {
            return Err("cannot read gone.gguf".into());
        }
        if spec.path.ends_with("counted.gguf") {
            let number = COUNTED_MODELS.fetch_add(1, Ordering::Relaxed);
            return Ok(FakeBackend::shared(&format!("model {number}"), Roles::All));
        }
        Ok(FakeBackend::shared("model", Roles::All))
    }

    async fn lookup(&self, _: LookupSpec) -> Made {
        Ok(FakeBackend::shared("lookup", Roles::Drafter))
    }

    async fn node(&self, _: NodeBackendSpec) -> Made {
        Ok(FakeBackend::shared("node", Roles::All))
    }

    async fn text_server(&self, _: TextServerSpec) -> Made {
        Ok(FakeBackend::shared("text", Roles::GeneratorAndDrafter))
    }

    async fn discover(&self, _: Duration) -> Result<Vec<DiscoveredNode>, FactoryError> {
        Ok(Vec::new())
    }

    async fn pooling(&self, _: PoolSpec) -> Made {
        Ok(FakeBackend::shared("pool", Roles::All))
    }

    async fn speculation(&self, _: SpeculationSpec) -> Made {
        Ok(FakeBackend::shared("speculation", Roles::Generator))
    }

    async fn gate(&self, _: GateSpec) -> Made {
        Ok(FakeBackend::shared("gate", Roles::Generator))
    }

    async fn consensus(&self, _: ConsensusSpec) -> Made {
        Ok(FakeBackend::shared("consensus", Roles::Generator))
    }
}
