//! A model on a text server and its backend roles.

use std::sync::Arc;

use async_trait::async_trait;
use tightwad_core::{
    Backend, BackendError, Drafter, DrafterSource, Event, FinishReason, Generator, OpenedTarget, Outcome,
    PreparedRequest, PromptReader, Report, Request, ResumePoint, Sink, TargetSource, Tokenizer, Usage,
};

use crate::client::Client;
use crate::drafter::TextDrafter;
use crate::error::ConnectError;
use crate::events::AnswerStream;
use crate::logprobs::{LogprobsTarget, is_greedy};
use crate::replay::ReplayTarget;
use crate::spec::{TextServerSpec, Verification};

/// A model on a text server.
pub struct TextServer {
    name: String,
    client: Arc<Client>,
    verifies: bool,
    reader: Option<Arc<dyn PromptReader>>,
}

impl TextServer {
    /// Connects to the server and checks its models. `reader` has the vocabulary of the model, for
    /// [`Verification::Logprobs`].
    ///
    /// # Errors
    ///
    /// [`ConnectError`] if the server does not reply, or does not have the model.
    pub async fn connect(
        spec: &TextServerSpec,
        reader: Option<Arc<dyn PromptReader>>,
    ) -> Result<Self, ConnectError> {
        let client = Arc::new(Client::connect(spec).await?);
        let name = client.name.clone();
        Ok(Self { name, client, verifies: spec.verify != Verification::None, reader })
    }

    /// Streams the answer into `sink`.
    async fn stream(&self, request: &Request, sink: &Sink) -> Result<(FinishReason, Usage), BackendError> {
        let mut answer = AnswerStream::start(&self.client, request).await?;
        while let Some(piece) = answer.next().await? {
            let sent = sink.send(Event { text: piece.text, logprobs: piece.logprobs }).await;
            sent.map_err(|_| BackendError::Cancelled)?;
        }
        Ok((answer.finish_reason(), answer.usage()))
    }
}

impl Backend for TextServer {
    fn name(&self) -> &str {
        &self.name
    }

    fn vocabulary(&self) -> Option<[u8; 32]> {
        self.reader.as_ref().map(|reader| reader.vocabulary())
    }

    fn as_generator(&self) -> Option<&dyn Generator> {
        Some(self)
    }

    fn as_target(&self) -> Option<&dyn TargetSource> {
        if self.verifies { Some(self) } else { None }
    }

    fn as_drafter(&self) -> Option<&dyn DrafterSource> {
        Some(self)
    }
}

#[async_trait]
impl Generator for TextServer {
    async fn generate(&self, request: Request, sink: Sink) -> Result<Outcome, BackendError> {
        let (finish, usage) = tokio::select! {
            done = self.stream(&request, &sink) => done?,
            () = sink.closed() => return Err(BackendError::Cancelled),
        };
        let report = Report { mode: "plain".to_owned(), exact: true, ..Report::default() };
        Ok(Outcome { finish_reason: finish, usage, report })
    }
}

#[async_trait]
impl TargetSource for TextServer {
    fn resumes(&self) -> bool {
        self.reader.is_some()
    }

    fn tokenizer(&self) -> Option<Arc<dyn Tokenizer>> {
        Some(self.reader.as_ref()?.tokenizer())
    }

    async fn prepare(&self, _request: &Arc<Request>) -> Result<PreparedRequest, BackendError> {
        Err(BackendError::unsupported(&self.name, "read tokens"))
    }

    async fn open_target(
        &self,
        request: &Arc<Request>,
        resume_point: Option<&ResumePoint>,
    ) -> Result<OpenedTarget, BackendError> {
        if let Some(reader) = self.reader.as_ref().filter(|_| is_greedy(request)) {
            return LogprobsTarget::open(&self.client, reader, request, resume_point).await;
        }
        if resume_point.is_some() {
            return Err(BackendError::unsupported(&self.name, "continue where another target ended"));
        }
        ReplayTarget::open(&self.client, request).await
    }
}

#[async_trait]
impl DrafterSource for TextServer {
    async fn open_drafter(&self, prepared: &PreparedRequest) -> Result<Box<dyn Drafter>, BackendError> {
        Ok(Box::new(TextDrafter::new(&self.name, &self.client, prepared)))
    }
}
