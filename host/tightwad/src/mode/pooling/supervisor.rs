//! Keeps a pool going: starts it, starts it anew over what is left when a worker or the process is lost,
//! and takes workers that come back.
//!
//! Invariant: at most one process of the pool runs, and `Phase::Ready` names it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::sleep;

use super::pools::Pools;
use super::start::{Live, NoStart, Starter};
use super::state::Usage;
use super::survey::survey;
use super::{Phase, Running};

/// Pauses between starts that fail, first and longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));
/// A pool that ran for so long was well: the next loss is a new one.
const WELL: Duration = Duration::from_secs(60);
/// How often lost workers and idle time are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// A pool that is used takes a worker back only after so long: everything must be read again.
const BUSY: Duration = Duration::from_secs(30);

/// What a supervisor may be told.
pub(super) enum Order {
    /// Load, if it is not loaded.
    Load,
    /// Finish what runs, and unload.
    Unload(oneshot::Sender<()>),
}

pub(super) struct Supervisor {
    pub starter: Arc<Starter>,
    pub pools: Arc<Pools>,
    pub usage: Arc<Usage>,
    pub phase: watch::Sender<Phase>,
    pub orders: mpsc::Receiver<Order>,
    pub generation: u64,
}

/// Why a pool that ran does not run any more.
enum End {
    Lost(String),
    Better(String),
    Unloaded,
}

impl Supervisor {
    pub(super) async fn run(mut self) {
        loop {
            match self.orders.recv().await {
                Some(Order::Load) => self.loaded().await,
                Some(Order::Unload(done)) => drop(done.send(())),
                None => return,
            }
            if !matches!(*self.phase.borrow(), Phase::Failed(_)) {
                self.set(Phase::Unloaded);
            }
        }
    }

    fn set(&self, phase: Phase) {
        let name = &self.starter.spec.name;
        match &phase {
            Phase::Loading(_) => {}
            Phase::Replanning(reason) => tracing::warn!(model = name, reason, "replanning"),
            Phase::Failed(reason) => tracing::error!(model = name, reason, "the pool failed"),
            other => tracing::info!(model = name, "{other}"),
        }
        self.phase.send_replace(phase);
    }

    /// Keeps it loaded until told otherwise, or until nothing helps.
    async fn loaded(&mut self) {
        let mut pause = BACKOFF.0;
        loop {
            let started = match self.start().await {
                Some(started) => started,
                None => return,
            };
            let reason = match started {
                Ok(live) => {
                    let since = Instant::now();
                    self.set(Phase::Ready(live.running.clone()));
                    match self.watch(live).await {
                        End::Unloaded => return,
                        End::Better(reason) => reason,
                        End::Lost(reason) => {
                            pause = if since.elapsed() > WELL { BACKOFF.0 } else { pause };
                            // The first try comes at once.
                            self.set(Phase::Replanning(reason));
                            continue;
                        }
                    }
                }
                Err(NoStart::Never(reason) | NoStart::TooBig(reason)) => {
                    return self.set(Phase::Failed(reason));
                }
                Err(NoStart::Again(reason)) => {
                    self.set(Phase::Replanning(reason.clone()));
                    if !self.rest(pause).await {
                        return;
                    }
                    pause = (pause * 2).min(BACKOFF.1);
                    reason
                }
            };
            self.set(Phase::Replanning(reason));
        }
    }

    /// One start; `None`: told to unload meanwhile.
    async fn start(&mut self) -> Option<Result<Live, NoStart>> {
        self.generation += 1;
        let (starter, pools, phase) = (self.starter.clone(), self.pools.clone(), self.phase.clone());
        let generation = self.generation;
        let starting = async move {
            loop {
                let shown = |now: Phase| {
                    let before = phase.send_replace(now.clone());
                    if let (Phase::Loading(done), Phase::Loading(was)) = (&now, &before)
                        && (4.0 * done).floor() > (4.0 * was).floor()
                    {
                        tracing::info!(model = starter.spec.name, "{now}");
                    }
                };
                match starter.start(generation, shown).await {
                    // Others may go, and those lost may come back.
                    Err(NoStart::TooBig(reason)) => {
                        if !pools.make_room(&starter.spec).await {
                            return Err(starter.without_lost(reason).await);
                        }
                    }
                    other => return other,
                }
            }
        };
        tokio::pin!(starting);
        loop {
            tokio::select! {
                started = &mut starting => return Some(started),
                order = self.orders.recv() => match order {
                    Some(Order::Load) => {}
                    Some(Order::Unload(done)) => {
                        let _ = done.send(());
                        return None;
                    }
                    None => return None,
                },
            }
        }
    }

    /// Waits before another try; false: told to unload meanwhile.
    async fn rest(&mut self, pause: Duration) -> bool {
        let until = tokio::time::Instant::now() + pause;
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(until) => return true,
                order = self.orders.recv() => match order {
                    Some(Order::Load) => {}
                    Some(Order::Unload(done)) => {
                        let _ = done.send(());
                        return false;
                    }
                    None => return false,
                },
            }
        }
    }

    /// Watches a pool that runs.
    async fn watch(&mut self, mut live: Live) -> End {
        let running = live.running.clone();
        let mut told = None;
        let end = loop {
            tokio::select! {
                reason = live.lost() => break End::Lost(reason),
                end = end(&self.starter, &self.usage, &running), if told.is_none() => break end,
                () = self.usage.unused(), if told.is_some() => break End::Unloaded,
                order = self.orders.recv(), if told.is_none() => match order {
                    Some(Order::Load) => {}
                    Some(Order::Unload(done)) => {
                        told = Some(done);
                        self.set(Phase::Draining);
                    }
                    None => break End::Unloaded,
                },
            }
        };
        if let End::Better(reason) = &end {
            self.set(Phase::Replanning(reason.clone()));
        }
        live.child.stop().await;
        drop(live.tunnels);
        if let Some(done) = told {
            self.set(Phase::Unloaded);
            let _ = done.send(());
        }
        end
    }
}

/// Completes when the pool should end by itself: unused for too long, or workers came back.
async fn end(starter: &Starter, usage: &Usage, running: &Running) -> End {
    let since = Instant::now();
    loop {
        sleep(LOOK).await;
        let ttl = starter.spec.ttl.filter(|_| !starter.spec.pinned);
        if ttl.is_some_and(|ttl| usage.idle() > ttl) {
            return End::Unloaded;
        }
        if running.absent.is_empty() || (usage.active() > 0 && since.elapsed() < BUSY) {
            continue;
        }
        for worker in starter.spec.workers.iter().filter(|worker| running.absent.contains(&worker.name)) {
            if survey(&starter.http, worker).await.is_ok() {
                return End::Better(format!("worker '{}' is back", worker.name));
            }
        }
    }
}

impl Starter {
    /// What to make of a model that does not fit: with workers lost, it may fit later.
    async fn without_lost(&self, reason: String) -> NoStart {
        if self.survey().await.absent.is_empty() { NoStart::TooBig(reason) } else { NoStart::Again(reason) }
    }
}
