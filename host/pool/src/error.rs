//! Why a pool cannot be planned or started.

use tightwad_engine::LoadError;
use tightwad_node::ConnectError;
use tightwad_sandbox::PluginError;
use tokio::task::JoinError;

use crate::child::ChildError;
use crate::layout::WrongPlan;
use crate::survey::Absent;

/// Why a pool cannot be planned or started.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// The file is not a model, or llama.cpp cannot use this machine.
    #[error(transparent)]
    Engine(#[from] LoadError),
    /// A thread that reads the file or measures this machine panicked.
    #[error(transparent)]
    Thread(#[from] JoinError),
    /// An HTTP client cannot be built.
    #[error(transparent)]
    Client(#[from] reqwest::Error),
    /// A worker answers, and cannot be used as it is.
    #[error(transparent)]
    Worker(#[from] Absent),
    /// Not one worker answers, and this machine may not hold layers.
    #[error("no worker answers: {reasons}")]
    NoWorker {
        /// The failure of each worker.
        reasons: String,
    },
    /// The placement plugin fails.
    #[error(transparent)]
    Plugin(#[from] PluginError),
    /// The placement plugin makes a plan that cannot be loaded.
    #[error("plugin {plugin} made a wrong plan: {source}")]
    Plan {
        /// Name and version of the plugin.
        plugin: String,
        /// The mistake.
        source: WrongPlan,
    },
    /// The model does not fit on the machines that are there: what is missing, and what to do.
    #[error("{0}")]
    TooBig(String),
    /// The placement plugin refuses to place the model, in its own words.
    #[error("{0}")]
    Refused(String),
    /// The plan cannot be loaded with the pins and tunnels of this pool.
    #[error(transparent)]
    Config(#[from] WrongPlan),
    /// A tunnel to a worker cannot be opened.
    #[error(transparent)]
    Tunnel(std::io::Error),
    /// A tunnel broke while the model was loaded: the worker, and the fault.
    #[error("{0}")]
    TunnelBroke(String),
    /// The process of the pool cannot be started.
    #[error(transparent)]
    Process(std::io::Error),
    /// The process of the pool ended while it loaded.
    #[error(transparent)]
    Child(#[from] ChildError),
    /// The process of the pool reports that the model cannot be loaded.
    #[error("{0}")]
    NotLoaded(String),
    /// The process of the pool does not answer as a node.
    #[error(transparent)]
    Node(#[from] ConnectError),
    /// The task that supervises the pool is gone.
    #[error("channel closed")]
    NoSupervisor,
    /// The first start of a pool failed.
    #[error("the pool '{pool}' does not start: {reason}")]
    NotStarted {
        /// The pool.
        pool: String,
        /// The failure, as the pool's phase names it.
        reason: String,
    },
}
