//! Servers that speak text: llama-server, Ollama, and everything with OpenAI's interface. They answer
//! whole requests; they draft by text, which the target's vocabulary cuts into tokens; and they can
//! stand as a target: in one pass where they say the log-probabilities of a prompt, else by replay, which
//! is exact and no faster than the server itself.

use std::sync::Arc;

use async_trait::async_trait;
use tightwad_core::{
    Backend, BackendError, Drafter, DrafterSource, Event, Finish, Generator, Left, OpenTarget, Outcome,
    PromptReader, Report, Request, Sink, TargetSource, Task, Tokenizer, Usage,
};

use crate::client::Client;
use crate::drafter::TextDrafter;
use crate::error::ConnectError;
use crate::events::Events;
use crate::logprobs::{LogprobsTarget, is_greedy};
use crate::replay::ReplayTarget;
use crate::spec::{TextServerSpec, Verification};

/// A model behind such a server.
pub struct TextServer {
    name: String,
    client: Arc<Client>,
    replay: bool,
    reader: Option<Arc<dyn PromptReader>>,
}

impl TextServer {
    /// Asks the server which models it has. `reader` has the vocabulary of its model, for
    /// [`Verification::Logprobs`].
    ///
    /// # Errors
    ///
    /// [`ConnectError`], where it does not answer, or has no such model.
    pub async fn connect(
        spec: &TextServerSpec,
        reader: Option<Arc<dyn PromptReader>>,
    ) -> Result<Self, ConnectError> {
        let client = Arc::new(Client::connect(spec).await?);
        let name = spec.name.clone().unwrap_or_else(|| client.model.clone());
        Ok(Self { name, client, replay: spec.verify != Verification::None, reader })
    }

    /// Streams the answer into `sink`.
    async fn stream(&self, request: &Request, sink: &Sink) -> Result<(Finish, Usage), BackendError> {
        let mut events = Events::begin(&self.client, request).await?;
        while let Some(event) = events.next().await? {
            let sent = sink.send(Event { text: event.text, logprobs: event.logprobs }).await;
            sent.map_err(|_| BackendError::Cancelled)?;
        }
        Ok((events.finish(), events.usage()))
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
        if self.replay { Some(self) } else { None }
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
        Ok(Outcome { finish, usage, report })
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

    async fn read(&self, _request: &Arc<Request>) -> Result<Task, BackendError> {
        Err(BackendError::unsupported(&self.name, "read tokens"))
    }

    async fn open_target(
        &self,
        request: &Arc<Request>,
        left: Option<&Left>,
    ) -> Result<OpenTarget, BackendError> {
        if let Some(reader) = self.reader.as_ref().filter(|_| is_greedy(request)) {
            return LogprobsTarget::open(&self.client, reader, request, left).await;
        }
        if left.is_some() {
            return Err(BackendError::unsupported(&self.name, "go on where another target was left"));
        }
        ReplayTarget::open(&self.client, request).await
    }
}

#[async_trait]
impl DrafterSource for TextServer {
    async fn open_drafter(&self, task: &Task) -> Result<Box<dyn Drafter>, BackendError> {
        Ok(Box::new(TextDrafter::new(&self.name, &self.client, task)))
    }
}
