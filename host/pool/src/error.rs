//! Errors of planning and starting a pool.

use tightwad_engine::LoadError;
use tightwad_net::{ClientError, InvalidUrl};
use tightwad_node::ConnectError;
use tightwad_sandbox::PluginError;
use tokio::task::JoinError;

use crate::child::ChildError;
use crate::layout::InvalidPlan;
use crate::probe::WorkerError;

/// The failure of planning or starting a pool.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// The file is not a model, or llama.cpp cannot use this machine.
    #[error(transparent)]
    Engine(#[from] LoadError),
    /// A thread that read the file or measured the host panicked.
    #[error(transparent)]
    Thread(#[from] JoinError),
    /// An HTTP client cannot be built.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The address of a worker is not valid.
    #[error("the address of a worker {0}")]
    Address(#[from] InvalidUrl),
    /// A worker cannot be used.
    #[error(transparent)]
    Worker(#[from] WorkerError),
    /// No worker answers, and the script does not let the host hold layers.
    #[error("no worker answers: {reasons}")]
    NoWorker {
        /// The failure of each worker.
        reasons: String,
    },
    /// The placement policy failed.
    #[error(transparent)]
    Plugin(#[from] PluginError),
    /// The placement policy returned an invalid plan.
    #[error("plugin {plugin} returned an invalid plan: {source}")]
    Plan {
        /// The name and version of the plugin.
        plugin: String,
        /// The mistake.
        source: InvalidPlan,
    },
    /// The model does not fit on the machines that answered. The text names the missing memory and the remedies.
    #[error("{0}")]
    TooBig(String),
    /// The placement policy refuses to place the model. The text is the policy's reason.
    #[error("{0}")]
    Refused(String),
    /// The plan does not match the tensor overrides and tunnels of this pool.
    #[error(transparent)]
    Config(#[from] InvalidPlan),
    /// A tunnel to a worker cannot be opened.
    #[error(transparent)]
    Tunnel(std::io::Error),
    /// A tunnel failed while the model was loaded. The text names the worker and the failure.
    #[error("{0}")]
    TunnelFailed(String),
    /// The process of the pool cannot be started.
    #[error(transparent)]
    Process(std::io::Error),
    /// The process of the pool ended while it loaded the model.
    #[error(transparent)]
    Child(#[from] ChildError),
    /// The process of the pool reports that the model cannot be loaded.
    #[error("{0}")]
    NotLoaded(String),
    /// The connection to the process of the pool failed.
    #[error(transparent)]
    Node(#[from] ConnectError),
    /// The supervisor of the pool has ended.
    #[error("the supervisor of the pool has ended")]
    NoSupervisor,
    /// The first start of a pool failed.
    #[error("the pool '{pool}' does not start: {reason}")]
    NotStarted {
        /// The name of the pool.
        pool: String,
        /// The reason in the pool's phase.
        reason: String,
    },
}
