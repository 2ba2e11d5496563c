//! A model of this process as a backend.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use tightwad_core::{
    Backend, BackendError, Drafter, DrafterSource, Generator, Health, Load, ModelFacts, OpenedTarget,
    Outcome, PreparedRequest, Request, ResumePoint, Scorer, Sink, TargetSource, TokenScore, Tokenizer,
    generate_by_decoding, to_hex,
};

use crate::backend::heads::LlamaHeads;
use crate::backend::prompt::{PreparedInput, RequestReader};
use crate::backend::session::{LlamaDrafter, LlamaTarget, backend_error};
use crate::constraint::Constraint;
use crate::engine::Engine;
use crate::error::SessionError;
use crate::session_params::SessionParams;

/// A model that this process runs.
#[derive(Clone)]
pub struct Llama {
    name: Arc<str>,
    engine: Engine,
    reader: Arc<RequestReader>,
}

impl Llama {
    /// Serves `engine` under `name`. `template` replaces the chat template of the file. Blocks while the template is
    /// tried.
    #[must_use]
    pub fn new(name: &str, engine: Engine, template: Option<&str>) -> Self {
        let reader = Arc::new(RequestReader::new(engine.weights().clone(), engine.context(), template));
        if let Some(error) = reader.template_error() {
            tracing::warn!(model = name, "{error}");
        }
        Self { name: name.into(), engine, reader }
    }

    /// The reason why the model refuses chat requests, if it has no usable chat template.
    #[must_use]
    pub fn template_error(&self) -> Option<String> {
        self.reader.template_error().map(ToString::to_string)
    }

    /// The engine, for its counters.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    fn backend_error(&self, error: SessionError) -> BackendError {
        backend_error(&self.name, error)
    }

    /// The maximum number of tokens to generate. Without a limit in the request, the tokens that the context
    /// has room for.
    fn max_tokens(&self, prompt: usize, requested: Option<u32>) -> Result<u32, BackendError> {
        let context = self.engine.context();
        let prompt = u32::try_from(prompt).unwrap_or(u32::MAX);
        match requested {
            Some(requested) => Ok(requested),
            None if prompt < context => Ok(context - prompt),
            None => Err(self.backend_error(SessionError::TooLong { context, prompt, generate: 1 })),
        }
    }
}

impl Backend for Llama {
    fn name(&self) -> &str {
        &self.name
    }

    fn vocabulary(&self) -> Option<[u8; 32]> {
        Some(self.engine.weights().vocabulary_digest())
    }

    fn facts(&self) -> Option<ModelFacts> {
        let (weights, stats) = (self.engine.weights(), self.engine.stats());
        let nanoseconds = |time: std::time::Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        Some(ModelFacts {
            vocabulary: to_hex(&weights.vocabulary_digest()),
            weights: to_hex(&weights.file_digest()),
            description: weights.description(),
            bytes: weights.size_bytes(),
            context: self.engine.context(),
            slots: self.engine.slots(),
            tools: self.reader.supports_tools(),
            heads: weights.head_count(),
            time_per_token_ns: nanoseconds(stats.time_per_token()),
            time_per_row_ns: nanoseconds(stats.time_per_row()),
        })
    }

    fn load(&self) -> Load {
        let stats = self.engine.stats();
        Load { active: stats.active_sequences(), waiting: stats.queued_requests() }
    }

    fn health(&self) -> Health {
        self.engine.stats().health()
    }

    fn as_generator(&self) -> Option<&dyn Generator> {
        Some(self)
    }

    fn as_target(&self) -> Option<&dyn TargetSource> {
        Some(self)
    }

    fn as_drafter(&self) -> Option<&dyn DrafterSource> {
        Some(self)
    }

    fn heads(&self) -> Option<Arc<dyn DrafterSource>> {
        let heads = LlamaHeads::new(&self.name, &self.engine)?;
        Some(Arc::new(heads))
    }

    fn as_scorer(&self) -> Option<&dyn Scorer> {
        Some(self)
    }
}

#[async_trait]
impl Generator for Llama {
    async fn generate(&self, request: Request, sink: Sink) -> Result<Outcome, BackendError> {
        generate_by_decoding(self, request, sink).await
    }
}

#[async_trait]
impl TargetSource for Llama {
    fn resumes(&self) -> bool {
        true
    }

    fn tokenizer(&self) -> Option<Arc<dyn Tokenizer>> {
        Some(self.reader.tokenizer())
    }

    async fn prepare(&self, request: &Arc<Request>) -> Result<PreparedRequest, BackendError> {
        let PreparedInput { prompt, text, constraint } = self.reader.prepare(&self.name, request).await?;
        Ok(PreparedRequest {
            max_tokens: self.max_tokens(prompt.len(), request.max_tokens)?,
            request: request.clone(),
            prompt: prompt.into(),
            text,
            constraint: constraint.map(|compiled| tightwad_core::Constraint::new(Arc::new(compiled))),
            tokenizer: self.reader.tokenizer(),
        })
    }

    async fn open_target(
        &self,
        request: &Arc<Request>,
        resume_point: Option<&ResumePoint>,
    ) -> Result<OpenedTarget, BackendError> {
        // A request that the queue refuses must not cost the time to render and tokenize its prompt.
        self.engine.check_queue().map_err(|error| self.backend_error(error))?;
        let mut prepared = self.prepare(request).await?;
        if let Some(resume_point) = resume_point {
            prepared.prompt = resume_point.prompt.clone();
            prepared.max_tokens = resume_point.max_tokens;
        }
        let output = resume_point.map(|resume_point| resume_point.output.clone()).unwrap_or_default();
        let params = SessionParams { output, prefill: true, ..session_params(&prepared) };
        let session = self.engine.open(params).await.map_err(|error| self.backend_error(error))?;
        let cached_tokens = session.reused_tokens();
        let session = Box::new(LlamaTarget::new(&self.name, session, &self.engine));
        Ok(OpenedTarget { session, cached_tokens, prepared })
    }
}

#[async_trait]
impl DrafterSource for Llama {
    async fn open_drafter(&self, prepared: &PreparedRequest) -> Result<Box<dyn Drafter>, BackendError> {
        let mut params = session_params(prepared);
        params.max_tokens = prepared.max_tokens.min(self.max_tokens(prepared.prompt.len(), None)?);
        if params.constraint.is_none() && prepared.request.is_constrained() {
            params.constraint =
                self.reader.prepare(&self.name, &prepared.request).await?.constraint.map(Arc::new);
        }
        let session = self.engine.open(params).await.map_err(|error| self.backend_error(error))?;
        Ok(Box::new(LlamaDrafter::new(&self.name, session, &self.engine, prepared.prompt.len())))
    }
}

#[async_trait]
impl Scorer for Llama {
    async fn score(
        &self,
        request: &Arc<Request>,
        answer: &str,
        part: Range<usize>,
    ) -> Result<Vec<TokenScore>, BackendError> {
        let mut prepared = self.prepare(request).await?;
        let mut context_tokens = prepared.tokenizer.tokenize(answer).await?;
        prepared.max_tokens = u32::try_from(context_tokens.len()).unwrap_or(u32::MAX);
        prepared.constraint = None;
        context_tokens.truncate(part.end);
        let scored_tokens = context_tokens.split_off(part.start.min(context_tokens.len()));
        if scored_tokens.is_empty() {
            return Ok(Vec::new());
        }
        let params = SessionParams { prefill: true, output: context_tokens, ..session_params(&prepared) };
        let mut session = self.engine.open(params).await.map_err(|error| self.backend_error(error))?;
        session.score(scored_tokens).await.map_err(|error| self.backend_error(error))
    }
}

/// The parameters of a session for `prepared`, without prefill.
fn session_params(prepared: &PreparedRequest) -> SessionParams {
    SessionParams {
        prompt: prepared.prompt.to_vec(),
        output: Vec::new(),
        sampling: prepared.request.sampling.clone(),
        constraint: prepared
            .constraint
            .as_ref()
            .and_then(|compiled| compiled.get::<Arc<Constraint>>().cloned()),
        max_tokens: prepared.max_tokens,
        prefill: false,
    }
}
