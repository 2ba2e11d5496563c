//! A model on a machine that runs `tightwad node`. The node verifies, proposes, generates and scores; token
//! ids, their text and single probabilities cross the network. `host/book/src/protocols/node.md` documents every field.

use std::sync::Arc;
use std::time::Duration;

use tightwad_core::{BackendError, Clock, Device, ModelFacts, Token};

use crate::client::checks::WrongReply;
use crate::client::error::ConnectError;
use crate::client::link::{CallError, Link, NodeCounters, backend_error};
use crate::client::probe::{fetch_facts, new_link};
use crate::client::vocabulary::Vocabulary;
use crate::protocol::facts::NodeFacts;

/// The address of a node, and how a host uses it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NodeSpec {
    /// `http://HOST:PORT`, as [`tightwad_net::ServerUrl`] reads it.
    pub url: String,
    /// The model's name on the node; default: its only model.
    pub model: Option<String>,
    /// The token that the node was started with.
    pub token: Option<Token>,
    /// The backend's name in reports; default: the model's name.
    pub name: Option<String>,
    /// The time that a request waits for a lost node.
    pub wait_timeout: Duration,
    /// The device of a node that a supervisor of this process watches. Calls to such a node have no timeouts.
    /// `None`: the node has no supervisor here, and the host derives the device from the URL.
    pub supervised_device: Option<Device>,
}

/// A model on a node.
pub struct Node {
    pub(crate) name: String,
    /// The model's name on the node.
    pub(crate) model: String,
    pub(crate) facts: ModelFacts,
    pub(crate) link: Arc<Link>,
    pub(crate) vocabulary: Arc<Vocabulary>,
    pub(crate) wait_timeout: Duration,
}

impl Node {
    /// Connects to the node and chooses its model.
    ///
    /// # Errors
    ///
    /// [`ConnectError`] if the node does not reply, uses another protocol version, or does not lend the
    /// model.
    pub async fn connect(spec: &NodeSpec) -> Result<Self, ConnectError> {
        Self::connect_with_clock(spec, Clock::default()).await
    }

    /// Like [`Node::connect`], with `clock` as the time source.
    pub(crate) async fn connect_with_clock(spec: &NodeSpec, clock: Clock) -> Result<Self, ConnectError> {
        let mut link = new_link(&spec.url, spec.token.clone(), spec.supervised_device.clone())?;
        link.clock = clock;
        let facts = fetch_facts(&link).await?;
        let (model, facts) = choose_model(&link.name, facts, spec.model.as_deref())?;
        let name = spec.name.clone().unwrap_or_else(|| model.clone());
        link.name = format!("node {name}");
        let link = Arc::new(link);
        let vocabulary = Arc::new(Vocabulary::new(&model, link.clone()));
        Ok(Self { name, model, facts, link, vocabulary, wait_timeout: spec.wait_timeout })
    }

    /// Live counters of the calls to the node.
    #[must_use]
    pub fn counters(&self) -> &NodeCounters {
        &self.link.counters
    }

    /// True unless the node failed several times in a row.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.link.is_up()
    }

    pub(crate) fn error(&self, error: CallError) -> BackendError {
        backend_error(&self.link, error)
    }

    pub(crate) fn wrong_reply(&self, error: &WrongReply) -> BackendError {
        self.error(self.link.invalid_reply(error))
    }
}

fn choose_model(
    node: &str,
    facts: NodeFacts,
    requested: Option<&str>,
) -> Result<(String, ModelFacts), ConnectError> {
    let models: Vec<String> = facts.models.iter().map(|model| model.name.clone()).collect();
    let node = node.to_owned();
    let model = match requested {
        Some(name) => facts.models.into_iter().find(|model| model.name == name),
        None if facts.models.len() > 1 => return Err(ConnectError::SeveralModels { node, models }),
        None => facts.models.into_iter().next(),
    };
    match model {
        Some(model) => Ok((model.name, model.facts)),
        None => {
            let model = requested.unwrap_or_default().to_owned();
            Err(ConnectError::UnknownModel { node, model, models })
        }
    }
}
