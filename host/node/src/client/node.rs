//! A model on another machine that runs `tightwad node`: it verifies, proposes, generates and scores
//! there; token ids, their text and single probabilities travel. `host/PROTOCOL.md` has every field.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use tightwad_core::{
    Backend, BackendError, Capabilities, Clock, Drafter, Left, Load, ModelFacts, OpenTarget, Outcome,
    Processor, Request, Scored, Sink, Task, Token, Tokenizer, WireRequest, generate_plainly,
};

use crate::client::drafter::NodeDrafter;
use crate::client::link::{Counts, Fault, Link};
use crate::client::target::NodeTarget;
use crate::client::vocabulary::Vocabulary;
use crate::protocol::calls::{ScoreAnswer, ScoreCall, TokenizeCall, Tokenized};
use crate::protocol::facts::{NodeFacts, PROTOCOL};

/// How a node is reached.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NodeSpec {
    /// `http://HOST:PORT`.
    pub url: String,
    /// The model's name there; default: the only one it lends.
    pub model: Option<String>,
    /// The token it was started with.
    pub token: Option<Token>,
    /// The name in reports; default: the model's.
    pub name: Option<String>,
    /// How long a request waits for a lost node to come back.
    pub patience: Duration,
    /// Someone else watches whether it lives: calls may take as long as they take. Where it computes, in
    /// place of what its address says.
    pub watched: Option<Processor>,
}

/// What a look at a node found.
#[derive(Debug, Clone)]
pub struct NodeHealth {
    /// What it says of itself.
    pub facts: NodeFacts,
    /// The way there and back, by its second answer: the first one also opens the connection.
    pub round_trip: Duration,
    /// How far its clock is from this machine's.
    pub skew: Duration,
}

/// Looks at the node at `url`.
///
/// # Errors
///
/// One sentence: it does not answer, or speaks another version.
pub async fn probe(url: &str, token: Option<Token>) -> Result<NodeHealth, String> {
    let link = link(url, token, None)?;
    asked(&link).await?;
    let start = std::time::Instant::now();
    let facts = asked(&link).await?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let round_trip = start.elapsed();
    let skew = (now.saturating_sub(round_trip / 2)).abs_diff(Duration::from_millis(facts.unix_ms));
    Ok(NodeHealth { facts, round_trip, skew })
}

fn link(url: &str, token: Option<Token>, watched: Option<Processor>) -> Result<Link, String> {
    let shown = url.trim_end_matches('/');
    let link = Link::new(format!("node {shown}"), shown, token, watched);
    link.map_err(|error| format!("'{url}' is no address of a node: {error}"))
}

/// What a node of this version says of itself.
async fn asked(link: &Link) -> Result<NodeFacts, String> {
    let facts = link.facts().await.map_err(|fault| match fault {
        Fault::Lost(reason) | Fault::OutOfStep(reason) => {
            format!("{reason}; is `tightwad node` running there, and does this machine reach it?")
        }
        Fault::Refused(error) => error.to_string(),
    })?;
    if facts.protocol != PROTOCOL {
        return Err(format!(
            "{} runs tightwad {} and speaks version {} of the protocol, this host speaks {PROTOCOL}: update the older one",
            link.name, facts.tightwad, facts.protocol
        ));
    }
    Ok(facts)
}

/// Least time for a call that computes, and how many times what was expected it may take: the node may
/// be busy with others.
const LEAST: Duration = Duration::from_secs(4);
const SLACK: u32 = 20;
/// Time for opening a session: it waits its turn and reads the prompt.
pub(crate) const OPENING: Duration = Duration::from_secs(20);
/// Time for a call that computes nothing.
pub(crate) const QUICK: Duration = Duration::from_secs(10);

/// How long a call that should take `expected` may take.
pub(crate) fn limit(expected: Duration) -> Duration {
    LEAST.max(expected * SLACK)
}

/// A model on a node.
pub struct Node {
    pub(crate) name: String,
    /// Its name on the node.
    pub(crate) model: String,
    pub(crate) facts: ModelFacts,
    pub(crate) link: Arc<Link>,
    pub(crate) vocabulary: Arc<Vocabulary>,
    pub(crate) patience: Duration,
}

impl Node {
    /// Asks the node what it lends.
    ///
    /// # Errors
    ///
    /// One sentence: the node does not answer, speaks another version, or lends no such model.
    pub async fn connect(spec: &NodeSpec) -> Result<Self, String> {
        Self::connect_by(spec, Clock::default()).await
    }

    /// The same, with calls timed by `clock`.
    pub(crate) async fn connect_by(spec: &NodeSpec, clock: Clock) -> Result<Self, String> {
        let mut link = link(&spec.url, spec.token.clone(), spec.watched.clone())?;
        link.clock = clock;
        let facts = asked(&link).await?;
        let (model, facts) = choose(&link.name, facts, spec.model.as_deref())?;
        let name = spec.name.clone().unwrap_or_else(|| model.clone());
        let link = Arc::new(link);
        let vocabulary = Arc::new(Vocabulary::new(&model, link.clone()));
        Ok(Self { name, model, facts, link, vocabulary, patience: spec.patience })
    }

    /// What happened on the way, live.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.link.counts
    }

    /// True when the node answered lately.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.link.is_up()
    }

    fn error(&self, fault: Fault) -> BackendError {
        error(&self.link, fault)
    }
}

/// The fault as a backend's error.
pub(crate) fn error(link: &Link, fault: Fault) -> BackendError {
    match fault {
        Fault::Refused(error) => error,
        Fault::Lost(reason) | Fault::OutOfStep(reason) => BackendError::failed(&link.name, reason),
    }
}

fn choose(node: &str, facts: NodeFacts, wanted: Option<&str>) -> Result<(String, ModelFacts), String> {
    let known: Vec<&str> = facts.models.iter().map(|model| model.name.as_str()).collect();
    let known = known.join(", ");
    let found = match wanted {
        Some(name) => facts.models.into_iter().find(|model| model.name == name),
        None if facts.models.len() > 1 => {
            return Err(format!("{node} lends several models: choose one with `model`: {known}"));
        }
        None => facts.models.into_iter().next(),
    };
    match found {
        Some(model) => Ok((model.name, model.facts)),
        None => Err(format!("{node} lends no model '{}'; it has: {known}", wanted.unwrap_or_default())),
    }
}

#[async_trait]
impl Backend for Node {
    fn name(&self) -> &str {
        &self.name
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::of_model(self.facts.tools, self.facts.recurrent)
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

    fn tokenizer(&self) -> Option<Arc<dyn Tokenizer>> {
        Some(self.vocabulary.clone())
    }

    async fn generate(&self, request: Request, sink: Sink) -> Result<Outcome, BackendError> {
        generate_plainly(self, request, sink).await
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

    async fn open_drafter(&self, task: &Task) -> Result<Box<dyn Drafter>, BackendError> {
        if !self.link.is_up() {
            return Err(BackendError::failed(&self.link.name, "it does not answer"));
        }
        Ok(Box::new(NodeDrafter::new(self, task)))
    }

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
