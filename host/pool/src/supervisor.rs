//! The supervisor of a pool. After the loss of a worker or of the process, the supervisor launches the pool again over the
//! remaining workers. When a lost worker returns, the supervisor launches the pool over all workers.
//!
//! Invariant: at most one process of the pool runs, and `Phase::Ready` describes that process.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tightwad_core::{Backoff, PoolSpec};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep};

use crate::launcher::{LaunchError, Launcher, PoolHandle};
use crate::state::{Phase, RunningPool, Usage};

/// Frees memory for a pool that does not fit.
#[async_trait]
pub(crate) trait Evictor: Send + Sync {
    /// Unloads the least recently used pool that shares a worker with `spec` and may be unloaded. Its requests finish
    /// first. Returns false if there is no such pool.
    async fn evict_for(&self, spec: &PoolSpec) -> bool;
}

/// The delay between launches that fail.
const LAUNCH_BACKOFF: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(15));
/// The run time after which a pool counts as stable. The next failure then starts with the shortest delay.
const STABLE_RUN_TIME: Duration = Duration::from_secs(60);
/// The time between two checks of lost workers and of the idle time.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// The maximum time until workers have freed the memory of an evicted pool.
const EVICTION_TIMEOUT: Duration = Duration::from_secs(5);
/// The minimum run time before a pool in use restarts for a returned worker. The restart loads the model again.
const MIN_RUN_TIME_IN_USE: Duration = Duration::from_secs(30);

/// The maximum time in which the running requests finish before an unload. A stream that its client does not read never
/// finishes.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(600);

/// A command for a supervisor.
pub(crate) enum Command {
    /// Loads the model if it is not loaded.
    Load,
    /// Finishes the running requests, unloads the model and replies.
    Unload(oneshot::Sender<()>),
}

pub(crate) struct Supervisor<S> {
    pub launcher: Arc<S>,
    pub evictor: Arc<dyn Evictor>,
    pub usage: Arc<Usage>,
    /// True when the host ends. The supervisor then launches nothing any more.
    pub draining: watch::Receiver<bool>,
    pub phase: watch::Sender<Phase>,
    pub commands: mpsc::Receiver<Command>,
    pub generation: u64,
}

/// The channel for the reply after an unload. `None`: the pool was dropped.
type UnloadReply = Option<oneshot::Sender<()>>;

/// The reason why a pool stops running.
enum StopReason {
    /// The pool starts again, for this reason.
    Restart(String),
    /// The pool was idle for too long.
    Idle,
}

impl<S: Launcher> Supervisor<S> {
    /// Executes commands until the pool is dropped.
    pub(crate) async fn run(mut self) {
        while let Some(command) = self.commands.recv().await {
            let reply = match command {
                Command::Load => self.keep_running().await.err().flatten(),
                Command::Unload(reply) => Some(reply),
            };
            if !matches!(*self.phase.borrow(), Phase::Failed(_) | Phase::Unloaded) {
                self.set(Phase::Unloaded);
            }
            if let Some(reply) = reply {
                // The sender of the command may have ended.
                let _ = reply.send(());
            }
        }
    }

    fn set(&self, phase: Phase) {
        let name = &self.launcher.spec().name;
        match &phase {
            Phase::Loading(_) => {}
            Phase::Replanning(reason) => tracing::warn!(model = name, reason, "pool is replanned"),
            Phase::Failed(reason) => tracing::error!(model = name, reason, "pool failed"),
            other => tracing::info!(model = name, "{other}"),
        }
        self.phase.send_replace(phase);
    }

    /// Keeps the pool running until it is idle, fails for good, or must unload.
    async fn keep_running(&mut self) -> Result<(), UnloadReply> {
        let mut failures = 0;
        loop {
            if *self.draining.borrow() {
                self.set(Phase::Failed("the host is shutting down".to_owned()));
                return Ok(());
            }
            match self.launch().await? {
                Ok(handle) => {
                    let start = Instant::now();
                    self.set(Phase::Ready(handle.running().clone()));
                    if let StopReason::Idle = self.watch(handle).await? {
                        return Ok(());
                    }
                    // The first launch after a failure has no delay.
                    failures = if start.elapsed() > STABLE_RUN_TIME { 0 } else { failures };
                }
                Err(
                    LaunchError::Permanent(error) | LaunchError::TooBig { error, workers_missing: false },
                ) => {
                    self.set(Phase::Failed(error.to_string()));
                    return Ok(());
                }
                // The model may fit when the missing workers return.
                Err(LaunchError::Retry(error) | LaunchError::TooBig { error, workers_missing: true }) => {
                    self.set(Phase::Replanning(error.to_string()));
                    unless_unloaded(&mut self.commands, sleep(LAUNCH_BACKOFF.delay(failures))).await?;
                    failures += 1;
                }
            }
        }
    }

    /// Launches the pool once. Evicts other pools while the model does not fit.
    async fn launch(&mut self) -> Result<Result<S::Handle, LaunchError>, UnloadReply> {
        self.generation += 1;
        let (launcher, evictor, phase) = (self.launcher.clone(), self.evictor.clone(), self.phase.clone());
        let generation = self.generation;
        let launching = async move {
            let mut last_eviction: Option<Instant> = None;
            loop {
                let set_phase = |new: Phase| {
                    let old = phase.send_replace(new.clone());
                    if let (Phase::Loading(new_share), Phase::Loading(old_share)) = (&new, &old)
                        && (4.0 * new_share).floor() > (4.0 * old_share).floor()
                    {
                        tracing::info!(model = launcher.spec().name, "{new}");
                    }
                };
                match launcher.launch(generation, &set_phase).await {
                    Err(LaunchError::TooBig { .. }) if evictor.evict_for(launcher.spec()).await => {
                        last_eviction = Some(Instant::now());
                    }
                    Err(LaunchError::TooBig { .. })
                        if last_eviction.is_some_and(|eviction| eviction.elapsed() < EVICTION_TIMEOUT) =>
                    {
                        sleep(CHECK_INTERVAL / 4).await;
                    }
                    other => return other,
                }
            }
        };
        unless_unloaded(&mut self.commands, launching).await
    }

    /// Watches a pool that runs until it stops.
    async fn watch(&mut self, mut handle: S::Handle) -> Result<StopReason, UnloadReply> {
        let running = handle.running().clone();
        let stopping = async {
            tokio::select! {
                reason = handle.wait_for_failure() => StopReason::Restart(reason),
                reason = stop_reason(&*self.launcher, &self.usage, &running, &self.draining) => reason,
            }
        };
        let result = unless_unloaded(&mut self.commands, stopping).await;
        match &result {
            Ok(StopReason::Restart(reason)) => self.set(Phase::Replanning(reason.clone())),
            Err(Some(_)) => {
                self.set(Phase::Draining);
                tokio::select! {
                    _ = handle.wait_for_failure() => {}
                    () = self.usage.unused() => {}
                    () = sleep(DRAIN_TIMEOUT) => {
                        let (model, active) = (&self.launcher.spec().name, self.usage.active());
                        tracing::warn!(model, active, "pool is unloaded, although requests have not finished");
                    }
                }
            }
            Ok(StopReason::Idle) | Err(None) => {}
        }
        handle.stop().await;
        result
    }
}

/// Runs `work` to its end, or stops it when a command to unload arrives.
async fn unless_unloaded<T>(
    commands: &mut mpsc::Receiver<Command>,
    work: impl Future<Output = T>,
) -> Result<T, UnloadReply> {
    tokio::pin!(work);
    loop {
        tokio::select! {
            result = &mut work => return Ok(result),
            command = commands.recv() => match command {
                Some(Command::Load) => {}
                Some(Command::Unload(reply)) => return Err(Some(reply)),
                None => return Err(None),
            },
        }
    }
}

/// Completes when the pool was idle for too long, or when a missing worker has returned.
async fn stop_reason(
    launcher: &impl Launcher,
    usage: &Usage,
    running: &RunningPool,
    draining: &watch::Receiver<bool>,
) -> StopReason {
    let start = Instant::now();
    loop {
        sleep(CHECK_INTERVAL).await;
        let spec = launcher.spec();
        let idle_timeout = spec.idle_timeout.filter(|_| !spec.keep_loaded);
        if idle_timeout.is_some_and(|timeout| usage.idle_time() > timeout) {
            return StopReason::Idle;
        }
        if *draining.borrow()
            || running.unreachable.is_empty()
            || (usage.active() > 0 && start.elapsed() < MIN_RUN_TIME_IN_USE)
        {
            continue;
        }
        for worker in spec.workers.iter().filter(|worker| running.unreachable.contains(&worker.name)) {
            if launcher.is_usable(worker).await {
                return StopReason::Restart(format!("worker '{}' has returned", worker.name));
            }
        }
    }
}

#[cfg(test)]
mod tests;
