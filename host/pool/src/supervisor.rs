//! Keeps a pool going: starts it, starts it anew over what is left when a worker or the process is lost,
//! and takes workers that come back.
//!
//! Invariant: at most one process of the pool runs, and `Phase::Ready` names it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tightwad_core::{Backoff, PoolSpec};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep};

use crate::launch::{Alive, NoStart, Start};
use crate::state::{Phase, Running, Usage};

/// Where a pool that does not fit asks for memory.
#[async_trait]
pub(crate) trait MakeRoom: Send + Sync {
    /// Unloads the pool that was not used for the longest time, shares a machine with `spec`, and is not pinned, once
    /// its requests are finished; false: there is none.
    async fn make_room(&self, spec: &PoolSpec) -> bool;
}

/// Between starts that fail.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(15));
/// A pool that ran for so long was well: the next loss is a new one.
const WELL: Duration = Duration::from_secs(60);
/// How often lost workers and idle time are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// A worker finds out a moment later that a pool is gone and its memory free.
const SETTLING: Duration = Duration::from_secs(5);
/// A pool that is used takes a worker back only after so long: everything must be read again.
const BUSY: Duration = Duration::from_secs(30);

/// What a supervisor may be told.
pub(crate) enum Order {
    /// Load, if it is not loaded.
    Load,
    /// Finish what runs, and unload.
    Unload(oneshot::Sender<()>),
}

pub(crate) struct Supervisor<S> {
    pub starter: Arc<S>,
    pub room: Arc<dyn MakeRoom>,
    pub usage: Arc<Usage>,
    pub phase: watch::Sender<Phase>,
    pub orders: mpsc::Receiver<Order>,
    pub generation: u64,
}

/// Who is told when the model is unloaded; `None`: nobody, the pool itself is gone.
type Told = Option<oneshot::Sender<()>>;

/// Why a pool that ran does not run any more.
enum End {
    /// It starts again, because of this.
    Again(String),
    Unused,
}

impl<S: Start> Supervisor<S> {
    pub(crate) async fn run(mut self) {
        while let Some(order) = self.orders.recv().await {
            let told = match order {
                Order::Load => self.loaded().await.err().flatten(),
                Order::Unload(done) => Some(done),
            };
            if !matches!(*self.phase.borrow(), Phase::Failed(_) | Phase::Unloaded) {
                self.set(Phase::Unloaded);
            }
            if let Some(done) = told {
                // Whoever gave the order may have left.
                let _ = done.send(());
            }
        }
    }

    fn set(&self, phase: Phase) {
        let name = &self.starter.spec().name;
        match &phase {
            Phase::Loading(_) => {}
            Phase::Replanning(reason) => tracing::warn!(model = name, reason, "replanning"),
            Phase::Failed(reason) => tracing::error!(model = name, reason, "the pool failed"),
            other => tracing::info!(model = name, "{other}"),
        }
        self.phase.send_replace(phase);
    }

    /// Keeps it loaded until it is told otherwise, nobody uses it, or nothing helps.
    async fn loaded(&mut self) -> Result<(), Told> {
        let mut failures = 0;
        loop {
            match self.start().await? {
                Ok(live) => {
                    let since = Instant::now();
                    self.set(Phase::Ready(live.running().clone()));
                    if let End::Unused = self.watch(live).await? {
                        return Ok(());
                    }
                    // The first try comes at once.
                    failures = if since.elapsed() > WELL { 0 } else { failures };
                }
                Err(NoStart::Never(error) | NoStart::TooBig { error, lost: false }) => {
                    self.set(Phase::Failed(error.to_string()));
                    return Ok(());
                }
                // With the workers that are lost, it may fit later.
                Err(NoStart::Again(error) | NoStart::TooBig { error, lost: true }) => {
                    self.set(Phase::Replanning(error.to_string()));
                    unless_told(&mut self.orders, sleep(BACKOFF.delay(failures))).await?;
                    failures += 1;
                }
            }
        }
    }

    /// One start.
    async fn start(&mut self) -> Result<Result<S::Live, NoStart>, Told> {
        self.generation += 1;
        let (starter, room, phase) = (self.starter.clone(), self.room.clone(), self.phase.clone());
        let generation = self.generation;
        let starting = async move {
            let mut made_room = None;
            loop {
                let shown = |now: Phase| {
                    let before = phase.send_replace(now.clone());
                    if let (Phase::Loading(done), Phase::Loading(was)) = (&now, &before)
                        && (4.0 * done).floor() > (4.0 * was).floor()
                    {
                        tracing::info!(model = starter.spec().name, "{now}");
                    }
                };
                match starter.start(generation, &shown).await {
                    Err(NoStart::TooBig { .. }) if room.make_room(starter.spec()).await => {
                        made_room = Some(Instant::now());
                    }
                    Err(NoStart::TooBig { .. })
                        if made_room.is_some_and(|made| made.elapsed() < SETTLING) =>
                    {
                        sleep(LOOK / 4).await;
                    }
                    other => return other,
                }
            }
        };
        unless_told(&mut self.orders, starting).await
    }

    /// Watches a pool that runs, to its end.
    async fn watch(&mut self, mut live: S::Live) -> Result<End, Told> {
        let running = live.running().clone();
        let by_itself = async {
            tokio::select! {
                reason = live.lost() => End::Again(reason),
                end = end(&*self.starter, &self.usage, &running) => end,
            }
        };
        let end = unless_told(&mut self.orders, by_itself).await;
        match &end {
            Ok(End::Again(reason)) => self.set(Phase::Replanning(reason.clone())),
            Err(Some(_)) => {
                self.set(Phase::Draining);
                tokio::select! {
                    _ = live.lost() => {}
                    () = self.usage.unused() => {}
                }
            }
            Ok(End::Unused) | Err(None) => {}
        }
        live.stop().await;
        end
    }
}

/// Does `work`, unless told to unload meanwhile.
async fn unless_told<T>(
    orders: &mut mpsc::Receiver<Order>,
    work: impl Future<Output = T>,
) -> Result<T, Told> {
    tokio::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return Ok(done),
            order = orders.recv() => match order {
                Some(Order::Load) => {}
                Some(Order::Unload(done)) => return Err(Some(done)),
                None => return Err(None),
            },
        }
    }
}

/// Completes when the pool should end by itself: unused for too long, or workers came back.
async fn end(starter: &impl Start, usage: &Usage, running: &Running) -> End {
    let since = Instant::now();
    loop {
        sleep(LOOK).await;
        let spec = starter.spec();
        let ttl = spec.ttl.filter(|_| !spec.pinned);
        if ttl.is_some_and(|ttl| usage.idle() > ttl) {
            return End::Unused;
        }
        if running.absent.is_empty() || (usage.active() > 0 && since.elapsed() < BUSY) {
            continue;
        }
        for worker in spec.workers.iter().filter(|worker| running.absent.contains(&worker.name)) {
            if starter.answers(worker).await {
                return End::Again(format!("worker '{}' is back", worker.name));
            }
        }
    }
}

#[cfg(test)]
mod tests;
