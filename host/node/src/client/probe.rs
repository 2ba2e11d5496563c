//! Fetches a node's facts.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tightwad_core::{Device, ModelFacts, Token};
use tightwad_net::{ServerUrl, excerpt, is_invisible};

use crate::client::error::ConnectError;
use crate::client::link::{CallError, Link};
use crate::protocol::facts::{NodeFacts, NodeModel, PROTOCOL_VERSION};

/// The result of probing a node.
#[derive(Debug, Clone)]
pub struct NodeHealth {
    /// The facts that the node reports.
    pub facts: NodeFacts,
    /// The network round trip, measured with the second call, because the first one also opens the
    /// connection.
    pub round_trip: Duration,
    /// The difference between the node's clock and this machine's.
    pub clock_skew: Duration,
}

/// Probes the node at `url`.
///
/// # Errors
///
/// [`ConnectError`] if the node does not reply, or uses another protocol version.
pub async fn probe(url: &str, token: Option<Token>) -> Result<NodeHealth, ConnectError> {
    let link = new_link(url, token, None)?;
    fetch_facts(&link).await?;
    let start = std::time::Instant::now();
    let facts = fetch_facts(&link).await?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let round_trip = start.elapsed();
    let clock_skew = (now.saturating_sub(round_trip / 2)).abs_diff(Duration::from_millis(facts.unix_ms));
    Ok(NodeHealth { facts, round_trip, clock_skew })
}

/// The HTTP client of the node at `url`.
pub(crate) fn new_link(
    url: &str,
    token: Option<Token>,
    supervised_device: Option<Device>,
) -> Result<Link, ConnectError> {
    let url: ServerUrl = url.parse()?;
    Link::new(format!("node {url}"), url, token, supervised_device).map_err(ConnectError::Client)
}

/// The longest time per row or token that the host believes, in nanoseconds.
const MAX_ROW_TIME_NS: u64 = 3600 * 1_000_000_000;

/// The maximum number of models of a node.
const MAX_MODELS: usize = 256;
/// The longest name of a model in bytes.
const MAX_NAME_BYTES: usize = 256;

/// Fetches the node's facts and checks its protocol version.
pub(crate) async fn fetch_facts(link: &Link) -> Result<NodeFacts, ConnectError> {
    let facts = link.facts().await.map_err(|error| match error {
        CallError::Transient(reason) | CallError::StaleSession(reason) => ConnectError::NoReply { reason },
        CallError::Refused(error) => ConnectError::Refused(error),
    })?;
    if facts.protocol != PROTOCOL_VERSION {
        let (node, tightwad, protocol) = (link.name.clone(), excerpt(&facts.tightwad, None), facts.protocol);
        return Err(ConnectError::Version { node, tightwad, protocol });
    }
    Ok(printable_facts(facts))
}

/// The facts with times that the host can add up, and with texts that it can print. A model whose name cannot
/// be printed is left out.
fn printable_facts(facts: NodeFacts) -> NodeFacts {
    let model = |model: NodeModel| {
        let facts = ModelFacts {
            description: excerpt(&model.facts.description, None),
            time_per_token_ns: model.facts.time_per_token_ns.min(MAX_ROW_TIME_NS),
            time_per_row_ns: model.facts.time_per_row_ns.min(MAX_ROW_TIME_NS),
            ..model.facts
        };
        let is_printable = model.name.len() <= MAX_NAME_BYTES && !model.name.chars().any(is_invisible);
        is_printable.then_some(NodeModel { facts, ..model })
    };
    let models = facts.models.into_iter().filter_map(model).take(MAX_MODELS).collect();
    NodeFacts { tightwad: excerpt(&facts.tightwad, None), models, ..facts }
}
