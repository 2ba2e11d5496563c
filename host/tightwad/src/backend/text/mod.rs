//! Servers that speak text: llama-server, Ollama, and everything with OpenAI's interface. They answer
//! whole requests; they draft by text, which the target's vocabulary cuts into tokens; and they can
//! stand as a target: in one pass where they say the log-probabilities of a prompt, else by replay, which
//! is exact and no faster than the server itself.

mod align;
mod body;
mod client;
mod dialect;
mod drafter;
mod events;
mod logprobs;
mod replay;
mod tools;

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use tightwad_engine::Weights;
use tightwad_net::Token;

pub(super) use self::align::aligned;
use self::client::Client;
pub use self::dialect::Dialect;
use self::drafter::TextDrafter;
use self::events::Events;
use self::logprobs::{LogprobsTarget, is_greedy};
use self::replay::ReplayTarget;
use super::llama::prompt::{Reader, UNKNOWN_CONTEXT};
use super::{Backend, BackendError, Capabilities, Drafter, Left, OpenTarget, Sink, Task, Tokenizer};
use crate::types::{Event, Finish, Outcome, Report, Request, Usage};

/// How a server is reached, and as what.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TextServerSpec {
    /// What it speaks.
    pub dialect: Dialect,
    /// `http://HOST:PORT`, without `/v1`.
    pub url: String,
    /// The model's name there; default: the only one it has.
    pub model: Option<String>,
    /// Its API key.
    pub token: Option<Token>,
    /// The name in reports; default: the model's.
    pub name: Option<String>,
    /// Whether and how it may be a target.
    pub verify: Verification,
}

/// How a server verifies.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Verification {
    /// Not at all.
    None,
    /// It generates freely, and what was proposed is compared.
    Replay,
    /// In one pass, by the log-probabilities of a prompt; this GGUF has the vocabulary of its model.
    Logprobs(PathBuf),
}

/// A model behind such a server.
pub struct TextServer {
    name: String,
    client: Arc<Client>,
    replay: bool,
    reader: Option<Arc<Reader>>,
}

impl TextServer {
    /// Asks the server which models it has.
    ///
    /// # Errors
    ///
    /// One sentence: it does not answer, or has no such model.
    pub async fn connect(spec: &TextServerSpec) -> Result<Self, String> {
        let client = Arc::new(Client::connect(spec).await?);
        let name = spec.name.clone().unwrap_or_else(|| client.model.clone());
        let reader = match spec.verify.clone() {
            Verification::Logprobs(path) => {
                let loading = tokio::task::spawn_blocking(move || Weights::vocabulary_of(&path));
                let weights = loading.await.map_err(|error| error.to_string())?;
                let weights = weights.map_err(|error| error.to_string())?;
                Some(Arc::new(Reader::new(weights, UNKNOWN_CONTEXT)))
            }
            Verification::None | Verification::Replay => None,
        };
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

#[async_trait]
impl Backend for TextServer {
    fn name(&self) -> &str {
        &self.name
    }

    fn capabilities(&self) -> Capabilities {
        let always = Capabilities::GENERATE.and(Capabilities::PROPOSE).and(Capabilities::TOOLS);
        let verifies = if self.replay { always.and(Capabilities::VERIFY) } else { always };
        if self.reader.is_some() { verifies.and(Capabilities::RESUME) } else { verifies }
    }

    fn vocabulary(&self) -> Option<[u8; 32]> {
        self.reader.as_ref().map(|reader| reader.weights.vocabulary())
    }

    fn tokenizer(&self) -> Option<Arc<dyn Tokenizer>> {
        Some(self.reader.as_ref()?.tokenizer())
    }

    async fn generate(&self, request: Request, sink: Sink) -> Result<Outcome, BackendError> {
        let (finish, usage) = tokio::select! {
            done = self.stream(&request, &sink) => done?,
            () = sink.closed() => return Err(BackendError::Cancelled),
        };
        let report = Report { mode: "plain".to_owned(), exact: true, ..Report::default() };
        Ok(Outcome { finish, usage, report })
    }

    async fn open_target(
        &self,
        request: &Arc<Request>,
        left: Option<&Left>,
    ) -> Result<OpenTarget, BackendError> {
        if !self.replay {
            return Err(BackendError::unsupported(&self.name, "verify"));
        }
        if let Some(reader) = self.reader.as_ref().filter(|_| is_greedy(request)) {
            return LogprobsTarget::open(&self.client, reader, request, left).await;
        }
        if left.is_some() {
            return Err(BackendError::unsupported(&self.name, "go on where another target was left"));
        }
        ReplayTarget::open(&self.client, request).await
    }

    async fn open_drafter(&self, task: &Task) -> Result<Box<dyn Drafter>, BackendError> {
        Ok(Box::new(TextDrafter::new(&self.name, &self.client, task)))
    }
}
