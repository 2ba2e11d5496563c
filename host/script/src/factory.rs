//! The backends that scripts ask for, and the trait of the host that makes them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Map, Value};
use tightwad_core::{
    CacheSpec, OnFailure, OnReviewerLost, PluginSpec, PoolSpec, ReviewMethods, SharedBackend, Token,
};
use tightwad_net::DiscoveredNode;
use tightwad_node::NodeSpec;
use tightwad_remote::TextServerSpec;
use tightwad_swarm::ModelRef;

use crate::fallback::FallbackError;

/// The options of `tw.model{}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ModelSpec {
    /// The GGUF file. With `swarm`: the file or the folder that receives the download.
    pub path: PathBuf,
    /// The source of the download if this machine lacks the file.
    pub swarm: Option<SwarmSource>,
    /// The name in reports and metrics; default: the file's name.
    pub name: Option<String>,
    /// The context length in tokens.
    pub context: Option<u32>,
    /// The number of sequences that run at the same time.
    pub slots: Option<u32>,
    /// The maximum number of requests that wait for a slot.
    pub max_queue: Option<u32>,
    /// The threads of a forward pass.
    pub threads: Option<u32>,
    /// The number of layers on a GPU.
    pub gpu_layers: Option<u32>,
    /// The source of the chat template; default: the one of the file.
    pub template: Option<Arc<str>>,
}

/// A model to download from other machines.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SwarmSource {
    /// The name or the digest of the model.
    pub model: ModelRef,
    /// Addresses of machines that may have the model; empty: discovery finds them on the local network.
    pub peers: Vec<String>,
    /// The bearer token of the peers.
    pub token: Option<Token>,
}

/// The options of `tw.lookup{}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LookupSpec {
    /// The name in reports.
    pub name: Option<String>,
    /// The number of tokens that must match before a proposal.
    pub min_match_tokens: Option<u32>,
    /// The number of tokens of earlier requests that it remembers.
    pub memory_tokens: Option<u32>,
    /// True when requests with different API keys share the memory.
    pub shared_memory: bool,
}

/// The options of `tw.node{}`.
pub struct NodeBackendSpec {
    /// The node.
    pub node: NodeSpec,
    /// The standby backends, in order.
    pub fallback: Vec<SharedBackend>,
}

/// The options of `tw.speculation{}`.
pub struct SpeculationSpec {
    /// The backend that verifies.
    pub target: SharedBackend,
    /// The backends that propose.
    pub drafters: Vec<SharedBackend>,
    /// The plugin that drives the mode; default: the built-in driver.
    pub driver: Option<PluginSpec>,
    /// The driver's settings.
    pub settings: Map<String, Value>,
}

/// The options of `tw.consensus{}`.
pub struct ConsensusSpec {
    /// The backend that decides when the drafters do not agree.
    pub target: SharedBackend,
    /// The backends that race.
    pub drafters: Vec<SharedBackend>,
    /// The policy that rules on ballots; default: the driver's own rules.
    pub policy: Option<PluginSpec>,
    /// The reaction to a failure of the policy.
    pub on_policy_failure: OnFailure,
    /// The plugin that drives the mode; default: the built-in driver.
    pub driver: Option<PluginSpec>,
    /// The driver's settings.
    pub settings: Map<String, Value>,
}

/// The options of `tw.gate{}`.
pub struct GateSpec {
    /// The backends that write candidates.
    pub fleet: Vec<SharedBackend>,
    /// The backend that reviews candidates.
    pub reviewer: SharedBackend,
    /// The methods of a review.
    pub review_methods: ReviewMethods,
    /// The reviewer's prompt for a judgement.
    pub judge_prompt: String,
    /// The policy that gives the verdict; default: the driver's own verdict.
    pub policy: Option<PluginSpec>,
    /// The plugin that drives the mode; default: the built-in driver.
    pub driver: Option<PluginSpec>,
    /// The reaction to the loss of the reviewer.
    pub on_reviewer_lost: OnReviewerLost,
    /// The cache of reviews; `None`: no cache.
    pub cache: Option<CacheSpec>,
    /// The driver's settings.
    pub settings: Map<String, Value>,
}

/// A factory cannot make a backend. The message names the fault and the remedy.
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
    /// Loads a model in this process.
    async fn model(&self, spec: ModelSpec) -> Result<SharedBackend, FactoryError>;
    /// Makes a drafter without a model.
    async fn lookup(&self, spec: LookupSpec) -> Result<SharedBackend, FactoryError>;
    /// Connects to a model on a node.
    async fn node(&self, spec: NodeBackendSpec) -> Result<SharedBackend, FactoryError>;
    /// Connects to a text server.
    async fn text_server(&self, spec: TextServerSpec) -> Result<SharedBackend, FactoryError>;
    /// Waits `time` for the announcements of nodes.
    async fn discover(&self, time: Duration) -> Result<Vec<DiscoveredNode>, FactoryError>;
    /// Makes a pool: one model over several machines.
    async fn pooling(&self, spec: PoolSpec) -> Result<SharedBackend, FactoryError>;
    /// Stacks speculation on a target.
    async fn speculation(&self, spec: SpeculationSpec) -> Result<SharedBackend, FactoryError>;
    /// Puts a gate before a reviewer.
    async fn gate(&self, spec: GateSpec) -> Result<SharedBackend, FactoryError>;
    /// Stacks consensus on a target.
    async fn consensus(&self, spec: ConsensusSpec) -> Result<SharedBackend, FactoryError>;
}
