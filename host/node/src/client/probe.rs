//! Fetches a node's facts.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tightwad_core::{Device, Token};

use crate::client::error::ConnectError;
use crate::client::link::{CallError, Link};
use crate::protocol::facts::{NodeFacts, PROTOCOL_VERSION};

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
    let trimmed = url.trim_end_matches('/');
    let link = Link::new(format!("node {trimmed}"), trimmed, token, supervised_device);
    link.map_err(|source| ConnectError::Address { url: url.to_owned(), source })
}

/// Fetches the node's facts and checks its protocol version.
pub(crate) async fn fetch_facts(link: &Link) -> Result<NodeFacts, ConnectError> {
    let facts = link.facts().await.map_err(|error| match error {
        CallError::Transient(reason) | CallError::StaleSession(reason) => ConnectError::NoReply { reason },
        CallError::Refused(error) => ConnectError::Refused(error),
    })?;
    if facts.protocol != PROTOCOL_VERSION {
        let (node, tightwad, protocol) = (link.name.clone(), facts.tightwad, facts.protocol);
        return Err(ConnectError::Version { node, tightwad, protocol });
    }
    Ok(facts)
}
