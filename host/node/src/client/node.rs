//! A model on a node as a backend.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tightwad_core::{
    Backend, BackendError, Drafter, DrafterSource, Generator, Left, Load, ModelFacts, OpenTarget, Outcome,
    Request, Scored, Scorer, Sink, TargetSource, Task, Tokenizer, WireRequest, generate_plainly,
};

use crate::client::drafter::NodeDrafter;
use crate::client::limits::{QUICK, limit};
use crate::client::model::Node;
use crate::client::target::NodeTarget;
use crate::protocol::calls::{ScoreAnswer, ScoreCall, TokenizeCall, Tokenized};

impl Backend for Node {
    fn name(&self) -> &str {
        &self.name
    }

    fn vocabulary(&self) -> Option<[u8; 32]> {
        self.facts.vocabulary_digest()
    }

    fn facts(&self) -> Option<ModelFacts> {
        Some(self.facts.clone())
    }

    fn load(&self) -> Load {
        Load::default()
    }

    fn as_generator(&self) -> Option<&dyn Generator> {
        Some(self)
    }

    fn as_target(&self) -> Option<&dyn TargetSource> {
        Some(self)
    }

    fn as_drafter(&self) -> Option<&dyn DrafterSource> {
        if self.facts.recurrent { None } else { Some(self) }
    }

    fn as_scorer(&self) -> Option<&dyn Scorer> {
        Some(self)
    }
}

#[async_trait]
impl Generator for Node {
    async fn generate(&self, request: Request, sink: Sink) -> Result<Outcome, BackendError> {
        generate_plainly(self, request, sink).await
    }
}

#[async_trait]
impl TargetSource for Node {
    fn verifies(&self) -> bool {
        !self.facts.recurrent
    }

    fn resumes(&self) -> bool {
        true
    }

    fn tokenizer(&self) -> Option<Arc<dyn Tokenizer>> {
        Some(self.vocabulary.clone())
    }

    async fn read(&self, request: &Arc<Request>) -> Result<Task, BackendError> {
        let call = TokenizeCall {
            model: self.model.clone(),
            text: String::new(),
            request: Some(WireRequest::from(request.as_ref())),
        };
        let ask = || self.link.call::<_, Tokenized>("/v1/node/tokenize", &call, QUICK);
        let read = self.link.patiently(self.patience, ask).await.map_err(|fault| self.error(fault))?;
        Ok(Task {
            request: request.clone(),
            prompt: read.tokens.into(),
            text: read.text.into(),
            max_tokens: read.max_tokens,
            constraint: None,
            tokenizer: self.vocabulary.clone(),
        })
    }

    async fn open_target(
        &self,
        request: &Arc<Request>,
        left: Option<&Left>,
    ) -> Result<OpenTarget, BackendError> {
        let opening = NodeTarget::open(self, request, left);
        let (session, task, cached) = opening.await.map_err(|fault| self.error(fault))?;
        Ok(OpenTarget { session: Box::new(session), cached, task })
    }
}

#[async_trait]
impl DrafterSource for Node {
    async fn open_drafter(&self, task: &Task) -> Result<Box<dyn Drafter>, BackendError> {
        if !self.link.is_up() {
            return Err(BackendError::failed(&self.link.name, "it does not answer"));
        }
        Ok(Box::new(NodeDrafter::new(self, task)))
    }
}

#[async_trait]
impl Scorer for Node {
    async fn score(
        &self,
        request: &Arc<Request>,
        answer: &str,
        part: Range<usize>,
    ) -> Result<Vec<Scored>, BackendError> {
        let call = ScoreCall {
            model: self.model.clone(),
            request: WireRequest::from(request.as_ref()),
            answer: answer.to_owned(),
            from: part.start,
            to: Some(part.end),
        };
        // A token has some three letters; the prompt must be read too.
        let tokens = u32::try_from(call.answer.len() / 3 + 4096).unwrap_or(u32::MAX);
        let limit = limit(Duration::from_nanos(self.facts.row_ns) * tokens);
        let ask = || self.link.call::<_, ScoreAnswer>("/v1/node/score", &call, limit);
        let scored = self.link.patiently(self.patience, ask).await.map_err(|fault| self.error(fault))?;
        Ok(scored.tokens.into_iter().map(Scored::from).collect())
    }
}
