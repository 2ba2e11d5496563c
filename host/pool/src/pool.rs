//! A pool, as its users see it: its phase, and requests to load and unload its model.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tightwad_core::{BackendError, PoolSpec};
use tightwad_engine::pool::ModelShape;
use tightwad_engine::{ChatTemplate, Weights};
use tightwad_modes::PlacementPolicy;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;

use crate::error::PoolError;
use crate::pool_launcher::PoolLauncher;
use crate::state::{Phase, RunningPool, Usage, UsageGuard};
use crate::supervisor::{Command, Evictor, Supervisor};

/// The maximum time until the supervisor detects the end of a process that failed a call.
const FAILURE_DETECTION_TIMEOUT: Duration = Duration::from_secs(3);
/// The maximum number of commands that wait for the supervisor.
const MAX_PENDING_COMMANDS: usize = 64;

/// A model whose layers lie on several machines.
pub struct Pool {
    pub(crate) launcher: Arc<PoolLauncher>,
    pub(crate) weights: Arc<Weights>,
    template_error: Option<String>,
    phase: watch::Receiver<Phase>,
    commands: mpsc::Sender<Command>,
    pub(crate) usage: Arc<Usage>,
    supervisor: AbortHandle,
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.supervisor.abort();
    }
}

impl Pool {
    /// Creates a pool without loading its model.
    ///
    /// # Errors
    ///
    /// Returns [`PoolError`] if the file is not a model.
    pub(crate) async fn new(
        spec: PoolSpec,
        plugin: Arc<PlacementPolicy>,
        evictor: Arc<dyn Evictor>,
        draining: watch::Receiver<bool>,
    ) -> Result<Arc<Self>, PoolError> {
        let path = spec.path.clone();
        let read = move || {
            let (model, weights) = (ModelShape::read(&path)?, Weights::load_vocabulary(&path)?);
            let template = ChatTemplate::from_weights(&weights);
            Ok::<_, PoolError>((model, weights, template))
        };
        let (model, weights, template) = tokio::task::spawn_blocking(read).await??;
        let tools = template.as_ref().is_ok_and(ChatTemplate::supports_tools);
        let template_error = template.err().map(|error| error.to_string());
        let launcher = Arc::new(PoolLauncher::new(spec, model, plugin, tools)?);
        let (phase_sender, phase) = watch::channel(Phase::Unloaded);
        let (commands, inbox) = mpsc::channel(MAX_PENDING_COMMANDS);
        let usage = Arc::new(Usage::new());
        let supervisor = Supervisor {
            launcher: launcher.clone(),
            evictor,
            usage: usage.clone(),
            draining,
            phase: phase_sender,
            commands: inbox,
            generation: 0,
        };
        let supervisor = tokio::spawn(supervisor.run()).abort_handle();
        Ok(Arc::new(Self { launcher, weights, template_error, phase, commands, usage, supervisor }))
    }

    /// The configuration of the pool.
    #[must_use]
    pub fn spec(&self) -> &PoolSpec {
        &self.launcher.spec
    }

    /// The reason why the model refuses chat requests, if it has no usable chat template.
    #[must_use]
    pub fn template_error(&self) -> Option<&str> {
        self.template_error.as_deref()
    }

    /// The phase of the pool.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase.borrow().clone()
    }

    /// True while machines hold the model or load it.
    #[must_use]
    pub fn is_loaded(&self) -> bool {
        !matches!(*self.phase.borrow(), Phase::Unloaded | Phase::Failed(_))
    }

    /// The time since the last use; zero while the pool is in use.
    #[must_use]
    pub fn idle_time(&self) -> Duration {
        self.usage.idle_time()
    }

    /// Loads the model and waits until the pool is ready.
    ///
    /// # Errors
    ///
    /// Returns the reason if the pool is not ready within its wait timeout.
    pub async fn load(&self) -> Result<Arc<RunningPool>, BackendError> {
        self.wait_until_ready(None).await
    }

    /// Finishes the running requests, then unloads the model.
    pub async fn unload(&self) {
        let (reply, unloaded) = oneshot::channel();
        if self.commands.send(Command::Unload(reply)).await.is_ok() {
            // A supervisor that has ended has unloaded the model.
            let _ = unloaded.await;
        }
    }

    /// Loads the model, unless the pool loads on demand. Returns the error of the first attempt, so that the user sees
    /// mistakes of the configuration immediately.
    pub(crate) async fn load_at_startup(&self) -> Result<(), PoolError> {
        if self.spec().on_demand {
            return Ok(());
        }
        let mut phase = self.phase.clone();
        self.commands.send(Command::Load).await.map_err(|_| PoolError::NoSupervisor)?;
        let is_decided =
            |phase: &Phase| matches!(phase, Phase::Ready(_) | Phase::Failed(_) | Phase::Replanning(_));
        let decided_phase = phase.wait_for(is_decided).await.map_err(|_| PoolError::NoSupervisor)?.clone();
        match decided_phase {
            Phase::Failed(reason) | Phase::Replanning(reason) => {
                Err(PoolError::NotStarted { pool: self.spec().name.clone(), reason })
            }
            _ => Ok(()),
        }
    }

    /// Loads the model if necessary and waits until the pool is ready.
    ///
    /// `failed_generation` is the generation of a process that failed a call. The pool can still count that process as
    /// ready. Returns that process only if it is still ready after `FAILURE_DETECTION_TIMEOUT`.
    pub(crate) async fn wait_until_ready(
        &self,
        failed_generation: Option<u64>,
    ) -> Result<Arc<RunningPool>, BackendError> {
        let failed = |reason: String| BackendError::failed(&self.spec().name, reason);
        let mut phase = self.phase.clone();
        let deadline = tokio::time::Instant::now() + self.spec().wait_timeout;
        let start = Instant::now();
        let mut load_requested = false;
        loop {
            let current_phase = phase.borrow_and_update().clone();
            match current_phase {
                Phase::Ready(running)
                    if failed_generation != Some(running.generation)
                        || start.elapsed() > FAILURE_DETECTION_TIMEOUT =>
                {
                    return Ok(running);
                }
                // Each request tries a failed pool once.
                Phase::Failed(reason) if load_requested => return Err(failed(reason)),
                Phase::Unloaded | Phase::Failed(_) => {
                    load_requested = true;
                    self.commands.send(Command::Load).await.map_err(|error| failed(error.to_string()))?;
                    // The supervisor changes the phase when it has received the command.
                    let _ = tokio::time::timeout(FAILURE_DETECTION_TIMEOUT, phase.changed()).await;
                }
                _ => {}
            }
            let next_check = deadline.min(tokio::time::Instant::now() + FAILURE_DETECTION_TIMEOUT);
            let changed = tokio::time::timeout_at(next_check, phase.changed()).await;
            if matches!(changed, Ok(Err(_))) {
                return Err(failed("the supervisor of the pool has ended".to_owned()));
            }
            if tokio::time::Instant::now() >= deadline {
                let seconds = self.spec().wait_timeout.as_secs();
                return Err(failed(format!("the pool is not ready after {seconds} s: {}", self.phase())));
            }
        }
    }

    /// The number of users of the pool.
    pub(crate) fn active(&self) -> usize {
        self.usage.active()
    }

    /// Counts a user until the guard is dropped.
    pub(crate) fn acquire(&self) -> UsageGuard {
        self.usage.acquire()
    }
}
