//! Asking a node for its facts.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tightwad_core::{Processor, Token};

use crate::client::error::ConnectError;
use crate::client::link::{Fault, Link};
use crate::protocol::facts::{NodeFacts, PROTOCOL};

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
/// [`ConnectError`], where it does not answer, or speaks another version.
pub async fn probe(url: &str, token: Option<Token>) -> Result<NodeHealth, ConnectError> {
    let link = link(url, token, None)?;
    asked(&link).await?;
    let start = std::time::Instant::now();
    let facts = asked(&link).await?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let round_trip = start.elapsed();
    let skew = (now.saturating_sub(round_trip / 2)).abs_diff(Duration::from_millis(facts.unix_ms));
    Ok(NodeHealth { facts, round_trip, skew })
}

/// The way to the node at `url`.
pub(crate) fn link(
    url: &str,
    token: Option<Token>,
    watched: Option<Processor>,
) -> Result<Link, ConnectError> {
    let shown = url.trim_end_matches('/');
    let link = Link::new(format!("node {shown}"), shown, token, watched);
    link.map_err(|source| ConnectError::Address { url: url.to_owned(), source })
}

/// What a node of this version says of itself.
pub(crate) async fn asked(link: &Link) -> Result<NodeFacts, ConnectError> {
    let facts = link.facts().await.map_err(|fault| match fault {
        Fault::Lost(reason) | Fault::OutOfStep(reason) => ConnectError::NoAnswer { reason },
        Fault::Refused(error) => ConnectError::Refused(error),
    })?;
    if facts.protocol != PROTOCOL {
        let (node, tightwad, protocol) = (link.name.clone(), facts.tightwad, facts.protocol);
        return Err(ConnectError::Version { node, tightwad, protocol });
    }
    Ok(facts)
}
