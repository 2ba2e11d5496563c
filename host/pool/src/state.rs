//! What a pool is doing.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tightwad_core::{Backend, sync};
use tightwad_tunnel::Meter;
use tokio::time::Instant;

use crate::layout::Placed;

/// What a pool is doing.
#[derive(Clone)]
pub enum Phase {
    /// Nothing: the next request loads it.
    Unloaded,
    /// Loading; how much of it is done, from 0 to 1.
    Loading(f32),
    /// Answering.
    Ready(Arc<Running>),
    /// Finishing what runs, to unload after that.
    Draining,
    /// Starting again, because of this.
    Replanning(String),
    /// Not to be had, because of this.
    Failed(String),
}

/// A pool that answers.
pub struct Running {
    /// Counts up with every start.
    pub generation: u64,
    /// The process that holds the model.
    pub node: Arc<dyn Backend>,
    /// Its process id.
    pub process: Option<u32>,
    /// What lies where.
    pub parts: Vec<Placed>,
    /// Workers that should be there and are not.
    pub absent: Vec<String>,
    /// How long it took to load.
    pub loading: Duration,
    /// What goes to and from each worker.
    pub meters: Vec<(String, Arc<Meter>)>,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unloaded => write!(f, "unloaded"),
            Self::Loading(done) => write!(f, "loading {:.0} %", 100.0 * done),
            Self::Ready(running) if running.absent.is_empty() => write!(f, "ready"),
            Self::Ready(running) => write!(f, "degraded: without {}", running.absent.join(", ")),
            Self::Draining => write!(f, "finishing its requests"),
            Self::Replanning(reason) => write!(f, "replanning: {reason}"),
            Self::Failed(reason) => write!(f, "failed: {reason}"),
        }
    }
}

/// How often a pool that is to be unloaded is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// How much a pool is used.
pub(crate) struct Usage {
    active: AtomicUsize,
    last: Mutex<Instant>,
}

impl Usage {
    pub(crate) fn new() -> Self {
        Self { active: AtomicUsize::new(0), last: Mutex::new(Instant::now()) }
    }

    /// Sessions that are open.
    pub(crate) fn active(&self) -> usize {
        self.active.load(Ordering::Acquire)
    }

    /// How long nobody has used it.
    pub(crate) fn idle(&self) -> Duration {
        if self.active() > 0 {
            return Duration::ZERO;
        }
        sync::lock(&self.last).elapsed()
    }

    /// Completes when nobody uses it.
    pub(crate) async fn unused(&self) {
        while self.active() > 0 {
            tokio::time::sleep(LOOK).await;
        }
    }

    pub(crate) fn begin(self: &Arc<Self>) -> InUse {
        self.active.fetch_add(1, Ordering::AcqRel);
        InUse(self.clone())
    }
}

/// Counts as use until it is dropped.
pub(crate) struct InUse(Arc<Usage>);

impl Drop for InUse {
    fn drop(&mut self) {
        *sync::lock(&self.0.last) = Instant::now();
        self.0.active.fetch_sub(1, Ordering::AcqRel);
    }
}
