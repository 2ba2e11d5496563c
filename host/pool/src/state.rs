//! The state of a pool.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tightwad_core::{Backend, sync};
use tightwad_tunnel::TrafficStats;
use tokio::time::Instant;

use crate::layout::LayerAssignment;

/// The phase of a pool.
#[derive(Clone)]
pub enum Phase {
    /// The model is not loaded. The next request loads it.
    Unloaded,
    /// The pool loads the model. The value is the loaded share, from 0 to 1.
    Loading(f32),
    /// The pool answers requests.
    Ready(Arc<RunningPool>),
    /// The pool finishes its requests and unloads the model afterwards.
    Draining,
    /// The pool starts again, for this reason.
    Replanning(String),
    /// The pool cannot start, for this reason.
    Failed(String),
}

/// A pool that answers requests.
pub struct RunningPool {
    /// The number of the start, from 1.
    pub generation: u64,
    /// The child process that runs the model.
    pub node: Arc<dyn Backend>,
    /// The id of the child process.
    pub process: Option<u32>,
    /// The layers of each machine.
    pub assignments: Vec<LayerAssignment>,
    /// The workers of the script that the pool could not use when it started.
    pub unreachable: Vec<String>,
    /// The duration of the load.
    pub load_time: Duration,
    /// The traffic to and from each worker.
    pub links: Vec<(String, Arc<TrafficStats>)>,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unloaded => write!(f, "unloaded"),
            Self::Loading(done) => write!(f, "loading {:.0} %", 100.0 * done),
            Self::Ready(running) if running.unreachable.is_empty() => write!(f, "ready"),
            Self::Ready(running) => write!(f, "degraded: without {}", running.unreachable.join(", ")),
            Self::Draining => write!(f, "finishing its requests"),
            Self::Replanning(reason) => write!(f, "replanning: {reason}"),
            Self::Failed(reason) => write!(f, "failed: {reason}"),
        }
    }
}

/// The time between two checks whether a pool is unused.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Counts the users of a pool.
pub(crate) struct Usage {
    active: AtomicUsize,
    last_use: Mutex<Instant>,
}

impl Usage {
    pub(crate) fn new() -> Self {
        Self { active: AtomicUsize::new(0), last_use: Mutex::new(Instant::now()) }
    }

    /// The number of open sessions.
    pub(crate) fn active(&self) -> usize {
        self.active.load(Ordering::Acquire)
    }

    /// The time since the last use; zero while the pool is in use.
    pub(crate) fn idle_time(&self) -> Duration {
        if self.active() > 0 {
            return Duration::ZERO;
        }
        sync::lock(&self.last_use).elapsed()
    }

    /// Completes when the pool has no users.
    pub(crate) async fn unused(&self) {
        while self.active() > 0 {
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Counts a user until the guard is dropped.
    pub(crate) fn acquire(self: &Arc<Self>) -> UsageGuard {
        self.active.fetch_add(1, Ordering::AcqRel);
        UsageGuard(self.clone())
    }
}

/// One user of a pool. Dropping the guard ends the use.
pub(crate) struct UsageGuard(Arc<Usage>);

impl Drop for UsageGuard {
    fn drop(&mut self) {
        *sync::lock(&self.0.last_use) = Instant::now();
        self.0.active.fetch_sub(1, Ordering::AcqRel);
    }
}
