//! llama.cpp in process.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use tightwad_core::{
    Backend, BackendError, Drafter, DrafterSource, Generator, Left, Load, ModelFacts, OpenTarget, Outcome,
    Request, Scored, Scorer, Sink, TargetSource, Task, Tokenizer, generate_plainly, hexadecimal,
};

use crate::backend::prompt::{Prepared, Reader};
use crate::backend::session::{LlamaDrafter, LlamaTarget, translate};
use crate::engine::Engine;
use crate::error::SessionError;
use crate::open_session::OpenSession;

/// A model that this process runs.
#[derive(Clone)]
pub struct Llama {
    name: Arc<str>,
    engine: Engine,
    reader: Arc<Reader>,
}

impl Llama {
    /// Serves `engine` under `name`.
    #[must_use]
    pub fn new(name: &str, engine: Engine) -> Self {
        let reader = Arc::new(Reader::new(engine.weights().clone(), engine.context()));
        Self { name: name.into(), engine, reader }
    }

    /// The engine, for its counters.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    fn error(&self, error: SessionError) -> BackendError {
        translate(&self.name, error)
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

impl Backend for Llama {
    fn name(&self) -> &str {
        &self.name
    }

    fn vocabulary(&self) -> Option<[u8; 32]> {
        Some(self.engine.weights().vocabulary())
    }

    fn facts(&self) -> Option<ModelFacts> {
        let (weights, stats) = (self.engine.weights(), self.engine.stats());
        let nanoseconds = |time: std::time::Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        Some(ModelFacts {
            vocabulary: hexadecimal(&weights.vocabulary()),
            weights: hexadecimal(&weights.digest()),
            description: weights.description(),
            bytes: weights.size(),
            context: self.engine.context(),
            slots: self.engine.slots(),
            tools: self.reader.knows_tools(),
            recurrent: weights.has_recurrent_state(),
            token_ns: nanoseconds(stats.token_time()),
            row_ns: nanoseconds(stats.row_time()),
        })
    }

    fn load(&self) -> Load {
        let stats = self.engine.stats();
        Load { active: stats.active(), waiting: stats.waiting() }
    }

    fn as_generator(&self) -> Option<&dyn Generator> {
        Some(self)
    }

    fn as_target(&self) -> Option<&dyn TargetSource> {
        Some(self)
    }

    fn as_drafter(&self) -> Option<&dyn DrafterSource> {
        if self.engine.weights().has_recurrent_state() { None } else { Some(self) }
    }

    fn as_scorer(&self) -> Option<&dyn Scorer> {
        Some(self)
    }
}

#[async_trait]
impl Generator for Llama {
    async fn generate(&self, request: Request, sink: Sink) -> Result<Outcome, BackendError> {
        generate_plainly(self, request, sink).await
    }
}

#[async_trait]
impl TargetSource for Llama {
    fn verifies(&self) -> bool {
        !self.engine.weights().has_recurrent_state()
    }

    fn resumes(&self) -> bool {
        true
    }

    fn tokenizer(&self) -> Option<Arc<dyn Tokenizer>> {
        Some(self.reader.tokenizer())
    }

    async fn read(&self, request: &Arc<Request>) -> Result<Task, BackendError> {
        let Prepared { prompt, text, constraint } = self.reader.prepare(&self.name, request).await?;
        Ok(Task {
            max_tokens: self.limit(prompt.len(), request.max_tokens)?,
            request: request.clone(),
            prompt: prompt.into(),
            text: text.into(),
            constraint: constraint.map(tightwad_core::Constraint::new),
            tokenizer: self.reader.tokenizer(),
        })
    }

    async fn open_target(
        &self,
        request: &Arc<Request>,
        left: Option<&Left>,
    ) -> Result<OpenTarget, BackendError> {
        let mut task = self.read(request).await?;
        if let Some(left) = left {
            task.prompt = left.prompt.clone();
            task.max_tokens = left.max_tokens;
        }
        let output = left.map(|left| left.output.clone()).unwrap_or_default();
        let open = OpenSession { output, prefill: true, ..open(&task) };
        let session = self.engine.open(open).await.map_err(|error| self.error(error))?;
        let cached = session.reused();
        let session = Box::new(LlamaTarget::new(&self.name, session, &self.engine));
        Ok(OpenTarget { session, cached, task })
    }
}

#[async_trait]
impl DrafterSource for Llama {
    async fn open_drafter(&self, task: &Task) -> Result<Box<dyn Drafter>, BackendError> {
        let mut open = open(task);
        open.max_tokens = task.max_tokens.min(self.limit(task.prompt.len(), None)?);
        if open.constraint.is_none() && task.request.is_constrained() {
            open.constraint = self.reader.prepare(&self.name, &task.request).await?.constraint;
        }
        let session = self.engine.open(open).await.map_err(|error| self.error(error))?;
        Ok(Box::new(LlamaDrafter::new(&self.name, session, &self.engine, task.prompt.len())))
    }
}

#[async_trait]
impl Scorer for Llama {
    async fn score(
        &self,
        request: &Arc<Request>,
        answer: &str,
        part: Range<usize>,
    ) -> Result<Vec<Scored>, BackendError> {
        let mut task = self.read(request).await?;
        let mut before = task.tokenizer.tokenize(answer).await?;
        task.max_tokens = u32::try_from(before.len()).unwrap_or(u32::MAX);
        task.constraint = None;
        before.truncate(part.end);
        let asked = before.split_off(part.start.min(before.len()));
        if asked.is_empty() {
            return Ok(Vec::new());
        }
        let open = OpenSession { prefill: true, output: before, ..open(&task) };
        let mut session = self.engine.open(open).await.map_err(|error| self.error(error))?;
        session.score(asked).await.map_err(|error| self.error(error))
    }
}

/// A session for `task`, to be opened lazily.
fn open(task: &Task) -> OpenSession {
    OpenSession {
        prompt: task.prompt.to_vec(),
        output: Vec::new(),
        sampling: task.request.sampling.clone(),
        constraint: task.constraint.as_ref().and_then(|compiled| compiled.get().cloned()),
        max_tokens: task.max_tokens,
        prefill: false,
    }
}
