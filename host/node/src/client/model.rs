//! A model on another machine that runs `tightwad node`: it verifies, proposes, generates and scores
//! there; token ids, their text and single probabilities travel. `host/PROTOCOL.md` has every field.

use std::sync::Arc;
use std::time::Duration;

use tightwad_core::{BackendError, Clock, ModelFacts, Processor, Token};

use crate::client::error::ConnectError;
use crate::client::link::{Counts, Fault, Link, error};
use crate::client::probe::{asked, link};
use crate::client::vocabulary::Vocabulary;
use crate::protocol::facts::NodeFacts;

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
    /// [`ConnectError`], where the node does not answer, speaks another version, or lends no such model.
    pub async fn connect(spec: &NodeSpec) -> Result<Self, ConnectError> {
        Self::connect_by(spec, Clock::default()).await
    }

    /// The same, with calls timed by `clock`.
    pub(crate) async fn connect_by(spec: &NodeSpec, clock: Clock) -> Result<Self, ConnectError> {
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

    pub(crate) fn error(&self, fault: Fault) -> BackendError {
        error(&self.link, fault)
    }
}

fn choose(node: &str, facts: NodeFacts, wanted: Option<&str>) -> Result<(String, ModelFacts), ConnectError> {
    let models: Vec<String> = facts.models.iter().map(|model| model.name.clone()).collect();
    let node = node.to_owned();
    let found = match wanted {
        Some(name) => facts.models.into_iter().find(|model| model.name == name),
        None if facts.models.len() > 1 => return Err(ConnectError::SeveralModels { node, models }),
        None => facts.models.into_iter().next(),
    };
    match found {
        Some(model) => Ok((model.name, model.facts)),
        None => {
            let model = wanted.unwrap_or_default().to_owned();
            Err(ConnectError::UnknownModel { node, model, models })
        }
    }
}
