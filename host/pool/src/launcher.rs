//! The interface between the supervisor of a pool and the code that launches the pool.

use std::sync::Arc;

use async_trait::async_trait;
use tightwad_core::{PoolSpec, WorkerSpec};

use crate::error::PoolError;
use crate::state::{Phase, RunningPool};

/// The failure of one launch.
#[derive(Debug)]
pub(crate) enum LaunchError {
    /// A later attempt may succeed.
    Retry(PoolError),
    /// The model does not fit on the machines that answered.
    TooBig {
        /// The shortage.
        error: PoolError,
        /// True when workers of the script did not answer: the model may fit with them.
        workers_missing: bool,
    },
    /// The user must change something first.
    Permanent(PoolError),
}

impl From<LaunchError> for PoolError {
    fn from(error: LaunchError) -> Self {
        match error {
            LaunchError::Retry(error) | LaunchError::TooBig { error, .. } | LaunchError::Permanent(error) => {
                error
            }
        }
    }
}

/// Launches the child process of a pool. Tests have a fake launcher.
#[async_trait]
pub(crate) trait Launcher: Send + Sync {
    /// The handle of a pool that runs.
    type Handle: PoolHandle;

    /// The configuration of the pool.
    fn spec(&self) -> &PoolSpec;

    /// Launches the pool and reports its progress to `phase`.
    async fn launch(
        &self,
        generation: u64,
        phase: &(dyn Fn(Phase) + Send + Sync),
    ) -> Result<Self::Handle, LaunchError>;

    /// True when `worker` answers and the pool can use the worker.
    async fn is_usable(&self, worker: &WorkerSpec) -> bool;
}

/// The handle of a pool that runs. Dropping the handle ends the child process.
#[async_trait]
pub(crate) trait PoolHandle: Send {
    /// The description of the pool.
    fn running(&self) -> &Arc<RunningPool>;

    /// Completes when the pool fails. Returns the reason.
    async fn wait_for_failure(&mut self) -> String;

    /// Ends the child process and waits until its memory is free.
    async fn stop(self);
}
