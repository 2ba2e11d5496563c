//! The facts that a node reports.

use serde::{Deserialize, Serialize};
use tightwad_core::{Load, ModelFacts};

/// The version of the node protocol. A host refuses a node with another version.
pub(crate) const PROTOCOL_VERSION: u32 = 1;

/// A model that a node lends.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NodeModel {
    /// The name that callers use.
    pub name: String,
    /// Properties of the model.
    #[serde(flatten)]
    pub facts: ModelFacts,
    /// Current load.
    #[serde(flatten)]
    pub load: Load,
}

/// The reply to `GET /v1/node`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NodeFacts {
    /// The node's version of tightwad.
    pub tightwad: String,
    /// The node's protocol version.
    pub protocol: u32,
    /// The node's clock, in milliseconds since 1970.
    pub unix_ms: u64,
    /// Number of open sessions.
    pub sessions: usize,
    /// The models that the node lends.
    pub models: Vec<NodeModel>,
}
