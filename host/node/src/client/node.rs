//! The backend roles of a model on a node.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tightwad_core::{
    Backend, BackendError, Drafter, DrafterSource, Generator, Health, Load, ModelFacts, OpenedTarget,
    Outcome, PreparedRequest, Request, ResumePoint, Scorer, Sink, TargetSource, TokenScore, Tokenizer,
    WireRequest, generate_by_decoding,
};

use crate::client::checks::{check_tokens, checked_scores};
use crate::client::drafter::DraftModel;
use crate::client::model::Node;
use crate::client::target::NodeTarget;
use crate::client::timeouts::{QUICK_CALL_TIMEOUT, call_timeout};
use crate::protocol::calls::{ScoreCall, ScoreReply, SessionRole, TokenizeCall, TokenizeReply};

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

    /// The node itself reports no health of its models: a failing model fails calls.
    fn health(&self) -> Health {
        if self.is_up() { Health::Ready } else { Health::Failing("the node does not answer".to_owned()) }
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
        let heads = || Arc::new(DraftModel::new(self, SessionRole::Heads)) as Arc<dyn DrafterSource>;
        (self.facts.heads > 0).then(heads)
    }

    fn as_scorer(&self) -> Option<&dyn Scorer> {
        Some(self)
    }
}

#[async_trait]
impl Generator for Node {
    async fn generate(&self, request: Request, sink: Sink) -> Result<Outcome, BackendError> {
        generate_by_decoding(self, request, sink).await
    }
}

#[async_trait]
impl TargetSource for Node {
    fn resumes(&self) -> bool {
        true
    }

    fn tokenizer(&self) -> Option<Arc<dyn Tokenizer>> {
        Some(self.vocabulary.clone())
    }

    async fn prepare(&self, request: &Arc<Request>) -> Result<PreparedRequest, BackendError> {
        let call = TokenizeCall {
            model: self.model.clone(),
            text: String::new(),
            request: Some(WireRequest::from(request.as_ref())),
        };
        let attempt = || self.link.call::<_, TokenizeReply>("/v1/node/tokenize", &call, QUICK_CALL_TIMEOUT);
        let reply =
            self.link.with_retries(self.wait_timeout, attempt).await.map_err(|error| self.error(error))?;
        check_tokens(&reply.tokens).map_err(|error| self.wrong_reply(&error))?;
        Ok(PreparedRequest {
            request: request.clone(),
            prompt: reply.tokens.into(),
            text: reply.text.into(),
            max_tokens: reply.max_tokens,
            constraint: None,
            tokenizer: self.vocabulary.clone(),
        })
    }

    async fn open_target(
        &self,
        request: &Arc<Request>,
        resume_point: Option<&ResumePoint>,
    ) -> Result<OpenedTarget, BackendError> {
        let opening = NodeTarget::open(self, request, resume_point);
        let (session, prepared, cached) = opening.await.map_err(|error| self.error(error))?;
        Ok(OpenedTarget { session: Box::new(session), cached_tokens: cached, prepared })
    }
}

#[async_trait]
impl DrafterSource for Node {
    async fn open_drafter(&self, prepared: &PreparedRequest) -> Result<Box<dyn Drafter>, BackendError> {
        DraftModel::new(self, SessionRole::Drafter).open_drafter(prepared).await
    }
}

#[async_trait]
impl Scorer for Node {
    async fn score(
        &self,
        request: &Arc<Request>,
        answer: &str,
        part: Range<usize>,
    ) -> Result<Vec<TokenScore>, BackendError> {
        let call = ScoreCall {
            model: self.model.clone(),
            request: WireRequest::from(request.as_ref()),
            answer: answer.to_owned(),
            from: part.start,
            to: Some(part.end),
        };
        // A token has about three letters. The node also processes the prompt, for which 4096 tokens are
        // allowed.
        let tokens = u32::try_from(call.answer.len() / 3 + 4096).unwrap_or(u32::MAX);
        let timeout = call_timeout(Duration::from_nanos(self.facts.time_per_row_ns) * tokens);
        let attempt = || self.link.call::<_, ScoreReply>("/v1/node/score", &call, timeout);
        let scored =
            self.link.with_retries(self.wait_timeout, attempt).await.map_err(|error| self.error(error))?;
        checked_scores(scored, part.len()).map_err(|error| self.wrong_reply(&error))
    }
}
