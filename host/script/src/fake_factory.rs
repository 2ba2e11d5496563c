//! A factory for tests: its backends answer with their name and the prompt.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tightwad_core::{
    Backend, BackendError, Capabilities, Event, Finish, Outcome, PoolSpec, Report, Request, SharedBackend,
    Sink, Usage,
};
use tightwad_net::Found;
use tightwad_remote::TextServerSpec;

use crate::factory::{
    ConsensusSpec, Factory, FactoryError, GateSpec, LentSpec, LookupSpec, ModelSpec, SpeculationSpec,
};

/// A backend without a model.
pub(crate) struct FakeBackend {
    pub(crate) name: String,
    pub(crate) capabilities: Capabilities,
    /// How long an answer takes.
    pub(crate) delay: Duration,
}

impl FakeBackend {
    pub(crate) fn shared(name: &str, capabilities: Capabilities) -> SharedBackend {
        Arc::new(Self { name: name.to_owned(), capabilities, delay: Duration::ZERO })
    }
}

#[async_trait]
impl Backend for FakeBackend {
    fn name(&self) -> &str {
        &self.name
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

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
        Ok(Outcome { finish: Finish::Stop, usage, report })
    }
}

/// Makes a [`FakeBackend`] of everything, but of no model whose file is called `gone.gguf`.
pub(crate) struct FakeFactory;

type Made = Result<SharedBackend, FactoryError>;

const MODEL: Capabilities = Capabilities::of_model(false, false);

#[async_trait]
impl Factory for FakeFactory {
    async fn model(&self, spec: ModelSpec) -> Made {
        if spec.path.ends_with("gone.gguf") {
            return Err("cannot read gone.gguf".into());
        }
        Ok(FakeBackend::shared("model", MODEL))
    }

    async fn lookup(&self, _: LookupSpec) -> Made {
        Ok(FakeBackend::shared("lookup", Capabilities::PROPOSE))
    }

    async fn node(&self, _: LentSpec) -> Made {
        Ok(FakeBackend::shared("node", MODEL))
    }

    async fn text_server(&self, _: TextServerSpec) -> Made {
        Ok(FakeBackend::shared("text", Capabilities::GENERATE.and(Capabilities::PROPOSE)))
    }

    async fn discover(&self, _: Duration) -> Result<Vec<Found>, FactoryError> {
        Ok(Vec::new())
    }

    async fn pooling(&self, _: PoolSpec) -> Made {
        Ok(FakeBackend::shared("pool", MODEL))
    }

    async fn speculation(&self, _: SpeculationSpec) -> Made {
        Ok(FakeBackend::shared("speculation", Capabilities::GENERATE))
    }

    async fn gate(&self, _: GateSpec) -> Made {
        Ok(FakeBackend::shared("gate", Capabilities::GENERATE))
    }

    async fn consensus(&self, _: ConsensusSpec) -> Made {
        Ok(FakeBackend::shared("consensus", Capabilities::GENERATE))
    }
}
