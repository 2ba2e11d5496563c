//! What the supervisor of a pool needs of whatever starts it.

use std::sync::Arc;

use async_trait::async_trait;
use tightwad_core::{PoolSpec, WorkerSpec};

use crate::error::PoolError;
use crate::state::{Phase, Running};

/// Why a pool did not start.
#[derive(Debug)]
pub(crate) enum NoStart {
    /// It may if tried again.
    Again(PoolError),
    /// It does not fit on the machines that are there; `lost`: others should be.
    TooBig { error: PoolError, lost: bool },
    /// Someone must change something first.
    Never(PoolError),
}

impl From<NoStart> for PoolError {
    fn from(error: NoStart) -> Self {
        match error {
            NoStart::Again(error) | NoStart::TooBig { error, .. } | NoStart::Never(error) => error,
        }
    }
}

/// How a pool is started; tests have one of their own.
#[async_trait]
pub(crate) trait Start: Send + Sync {
    /// A pool that runs.
    type Live: Alive;

    /// What the script asked for.
    fn spec(&self) -> &PoolSpec;

    /// Starts the pool; `phase` is told how far it is.
    async fn start(
        &self,
        generation: u64,
        phase: &(dyn Fn(Phase) + Send + Sync),
    ) -> Result<Self::Live, NoStart>;

    /// True when `worker` is there and can be used.
    async fn answers(&self, worker: &WorkerSpec) -> bool;
}

/// A pool that runs; it ends when dropped.
#[async_trait]
pub(crate) trait Alive: Send {
    /// What it is.
    fn running(&self) -> &Arc<Running>;

    /// Completes when it cannot go on, with why.
    async fn lost(&mut self) -> String;

    /// Ends it and waits until its memory is free.
    async fn stop(self);
}
