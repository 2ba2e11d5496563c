//! What scripts ask for; who makes it is not their business.

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Map, Value};
use tightwad_core::{CacheSpec, OnFailure, OnReviewerLost, PoolSpec, SharedBackend, Token, Ways};
use tightwad_net::Found;
use tightwad_node::NodeSpec;
use tightwad_remote::TextServerSpec;
use tightwad_swarm::Wanted;

use crate::fallback::FallbackError;

/// `tw.model{}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ModelSpec {
    /// The GGUF file; with `swarm`, that or the folder it comes into.
    pub path: PathBuf,
    /// Pulled from other machines where it is not there.
    pub swarm: Option<SwarmSource>,
    /// The name in reports and metrics; default: the file's name.
    pub name: Option<String>,
    /// Tokens a sequence may have.
    pub context: Option<u32>,
    /// Sequences that run at once.
    pub slots: Option<u32>,
    /// Requests that may wait for a slot.
    pub queue: Option<u32>,
    /// Threads of a forward pass.
    pub threads: Option<u32>,
    /// Layers on a GPU.
    pub gpu_layers: Option<u32>,
}

/// A model that other machines have.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SwarmSource {
    /// Which one.
    pub wanted: Wanted,
    /// Addresses of machines that may have it; empty: those found on the local network.
    pub peers: Vec<String>,
    /// What they want to see.
    pub token: Option<Token>,
}

/// `tw.lookup{}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LookupSpec {
    /// The name in reports.
    pub name: Option<String>,
    /// Tokens that must have stood somewhere before.
    pub min_match: Option<u32>,
}

/// `tw.node{}`.
pub struct LentSpec {
    /// The node.
    pub spec: NodeSpec,
    /// Who stands by, in order.
    pub fallback: Vec<SharedBackend>,
}

/// `tw.speculation{}`.
pub struct SpeculationSpec {
    /// Verifies.
    pub target: SharedBackend,
    /// Propose.
    pub drafters: Vec<SharedBackend>,
    /// The plugin that drives; default: the built-in one.
    pub plugin: Option<PluginSpec>,
    /// What the plugin reads.
    pub settings: Map<String, Value>,
}

/// A plugin that a script names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginSpec {
    /// Its name, or its path.
    pub name: String,
    /// The digest that it must have.
    pub sha256: Option<String>,
}

/// `tw.consensus{}`.
pub struct ConsensusSpec {
    /// Is asked where the drafters do not agree.
    pub target: SharedBackend,
    /// Race.
    pub drafters: Vec<SharedBackend>,
    /// The policy that rules on ballots; default: the mode's own rules.
    pub plugin: Option<PluginSpec>,
    /// What happens when it fails.
    pub on_failure: OnFailure,
    /// The plugin that drives; default: the built-in one.
    pub mode: Option<String>,
    /// What the mode reads.
    pub settings: Map<String, Value>,
}

/// `tw.gate{}`.
pub struct GateSpec {
    /// Write.
    pub fleet: Vec<SharedBackend>,
    /// Reviews.
    pub reviewer: SharedBackend,
    /// How.
    pub ways: Ways,
    /// What the reviewer is asked.
    pub prompt: String,
    /// The policy whose verdict counts; default: the mode's own.
    pub plugin: Option<PluginSpec>,
    /// The plugin that drives; default: the built-in one.
    pub mode: Option<String>,
    /// What happens when the reviewer is lost.
    pub on_lost: OnReviewerLost,
    /// What is kept of reviews; `None`: nothing.
    pub cache: Option<CacheSpec>,
    /// What the mode reads.
    pub settings: Map<String, Value>,
}

/// A factory cannot make what a script asks for. The message is one sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FactoryError(String);

impl From<String> for FactoryError {
    fn from(message: String) -> Self {
        Self(message)
    }
}

impl From<&str> for FactoryError {
    fn from(message: &str) -> Self {
        Self(message.to_owned())
    }
}

impl From<FallbackError> for FactoryError {
    fn from(error: FallbackError) -> Self {
        Self(error.to_string())
    }
}

impl From<FactoryError> for String {
    fn from(error: FactoryError) -> Self {
        error.0
    }
}

/// Makes backends for scripts.
#[async_trait]
pub trait Factory: Send + Sync {
    /// A model in this process.
    async fn model(&self, spec: ModelSpec) -> Result<SharedBackend, FactoryError>;
    /// A drafter without a model.
    async fn lookup(&self, spec: LookupSpec) -> Result<SharedBackend, FactoryError>;
    /// A model on another machine.
    async fn node(&self, spec: LentSpec) -> Result<SharedBackend, FactoryError>;
    /// A server that speaks text.
    async fn text_server(&self, spec: TextServerSpec) -> Result<SharedBackend, FactoryError>;
    /// The nodes that make themselves known within this time.
    async fn discover(&self, wait: Duration) -> Result<Vec<Found>, FactoryError>;
    /// A model over many machines.
    async fn pooling(&self, spec: PoolSpec) -> Result<SharedBackend, FactoryError>;
    /// Speculation over backends.
    async fn speculation(&self, spec: SpeculationSpec) -> Result<SharedBackend, FactoryError>;
    /// A gate before a reviewer.
    async fn gate(&self, spec: GateSpec) -> Result<SharedBackend, FactoryError>;
    /// A consensus of backends.
    async fn consensus(&self, spec: ConsensusSpec) -> Result<SharedBackend, FactoryError>;
}
