//! llama.cpp in process.

mod prompt;
mod session;

use std::sync::Arc;

use async_trait::async_trait;
use tightwad_engine::{ChatTemplate, Engine, OpenSession, SessionError, TemplateError};

use self::prompt::Prepared;
use self::session::{LlamaDrafter, LlamaTarget};
use super::{Backend, BackendError, Capabilities, Drafter, OpenTarget, Output, Sink, decode_to_end};
use crate::types::{Outcome, Report, Request};

/// A model that this process runs.
#[derive(Clone)]
pub struct Llama {
    name: Arc<str>,
    engine: Engine,
    template: Arc<Result<ChatTemplate, TemplateError>>,
}

impl Llama {
    /// Serves `engine` under `name`.
    #[must_use]
    pub fn new(name: &str, engine: Engine) -> Self {
        let template = Arc::new(ChatTemplate::of(engine.weights()));
        Self { name: name.into(), engine, template }
    }

    /// The engine, for its counters.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Renders, tokenizes and compiles, which may take long for a long prompt or a big schema.
    async fn prepare(&self, request: &Request) -> Result<Prepared, BackendError> {
        let (backend, request) = (self.clone(), request.clone());
        let work = move || prompt::prepare(backend.engine.weights(), &backend.template, &request);
        let done = tokio::task::spawn_blocking(work).await;
        done.map_err(|error| BackendError::failed(&self.name, error))?
    }

    fn error(&self, error: SessionError) -> BackendError {
        session::translate(&self.name, error)
    }

    /// Tokens to generate when the request does not say: all that fit.
    fn limit(&self, prompt: usize, wanted: Option<u32>) -> Result<u32, BackendError> {
        let context = self.engine.context();
        let prompt = u32::try_from(prompt).unwrap_or(u32::MAX);
        match wanted {
            Some(wanted) => Ok(wanted),
            None if prompt < context => Ok(context - prompt),
            None => Err(self.error(SessionError::TooLong { context, prompt, generate: 1 })),
        }
    }
}

#[async_trait]
impl Backend for Llama {
    fn name(&self) -> &str {
        &self.name
    }

    fn capabilities(&self) -> Capabilities {
        let always = Capabilities::GENERATE.and(Capabilities::VERIFY).and(Capabilities::PROPOSE);
        match self.template.as_ref() {
            Ok(template) if template.knows_tools() => always.and(Capabilities::TOOLS),
            _ => always,
        }
    }

    fn vocabulary(&self) -> Option<[u8; 32]> {
        Some(self.engine.weights().vocabulary())
    }

    async fn generate(&self, request: Request, sink: Sink) -> Result<Outcome, BackendError> {
        let opened = tokio::select! {
            opened = self.open_target(&request) => opened?,
            () = sink.closed() => return Err(BackendError::Cancelled),
        };
        let mut output = Output::new(&request, &opened, sink);
        let mut session = opened.session;
        let ties = decode_to_end(session.as_mut(), &mut output).await?;
        let (finish, usage) = output.end();
        let report = Report { mode: "plain".to_owned(), exact: true, ties, ..Report::default() };
        Ok(Outcome { finish, usage, report })
    }

    async fn open_target(&self, request: &Request) -> Result<OpenTarget, BackendError> {
        let Prepared { prompt, constraint } = self.prepare(request).await?;
        let max_tokens = self.limit(prompt.len(), request.max_tokens)?;
        let open = OpenSession {
            prompt: prompt.clone(),
            sampling: request.sampling.clone(),
            constraint: constraint.clone(),
            max_tokens,
            prefill: true,
        };
        let session = self.engine.open(open).await.map_err(|error| self.error(error))?;
        Ok(OpenTarget {
            cached: session.reused(),
            session: Box::new(LlamaTarget::new(&self.name, session, &self.engine)),
            prompt,
            max_tokens,
            sampling: request.sampling.clone(),
            constraint,
            vocabulary: self.engine.weights().vocabulary(),
        })
    }

    async fn open_drafter(&self, target: &OpenTarget) -> Result<Box<dyn Drafter>, BackendError> {
        let fits = self.limit(target.prompt.len(), None)?;
        let open = OpenSession {
            prompt: target.prompt.clone(),
            sampling: target.sampling.clone(),
            constraint: target.constraint.clone(),
            max_tokens: target.max_tokens.min(fits),
            prefill: false,
        };
        let session = self.engine.open(open).await.map_err(|error| self.error(error))?;
        Ok(Box::new(LlamaDrafter::new(&self.name, session, &self.engine, target.prompt.len())))
    }
}
