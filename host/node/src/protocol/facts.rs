//! What a node says of itself.

use serde::{Deserialize, Serialize};
use tightwad_core::{Load, ModelFacts};

/// The version of these messages. A node of another version is refused.
pub(crate) const PROTOCOL: u32 = 1;

/// A model that a node lends.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NodeModel {
    /// The name to ask for.
    pub name: String,
    /// What it is.
    #[serde(flatten)]
    pub facts: ModelFacts,
    /// How busy it is.
    #[serde(flatten)]
    pub load: Load,
}

/// What `GET /v1/node` answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NodeFacts {
    /// The node's version.
    pub tightwad: String,
    /// The version of the messages.
    pub protocol: u32,
    /// The node's clock, in milliseconds since 1970.
    pub unix_ms: u64,
    /// Open sessions.
    pub sessions: usize,
    /// The models it lends.
    pub models: Vec<NodeModel>,
}
