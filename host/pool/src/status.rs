//! The status and the plan of a pool, for users.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde::Serialize;
use serde_json::{Value, json};
use tightwad_core::PoolSpec;
use tightwad_engine::pool::ModelShape;
use tightwad_modes::{Layer, PlacementPolicy};
use tightwad_sandbox::Plugin;
use tightwad_tunnel::TrafficStats;

use crate::error::PoolError;
use crate::layout;
use crate::layout::{LayerAssignment, assignments};
use crate::pool::Pool;
use crate::pool_launcher::{PlannedPool, PoolLauncher};
use crate::probe::{ProbedWorker, WorkerError};
use crate::state::Phase;

/// A pool in the response of `GET /v1/tightwad/status`.
#[derive(Debug, Clone, Serialize)]
pub struct PoolStatus {
    /// The name of the pool.
    pub model: String,
    /// The phase in one word: `unloaded`, `loading`, `ready`, `degraded`, `draining`, `replanning`, `failed`.
    pub state: &'static str,
    /// The phase as text, with its reason.
    pub detail: String,
    /// The number of requests and sessions that use the pool.
    pub active: usize,
    /// True when the model is never unloaded to free memory for another pool.
    pub keep_loaded: bool,
    /// Further fields of a pool that answers requests.
    #[serde(flatten)]
    pub running: Value,
}

/// Returns the status of `pool`.
#[must_use]
pub fn pool_status(pool: &Pool) -> PoolStatus {
    let phase = pool.phase();
    let state = match &phase {
        Phase::Unloaded => "unloaded",
        Phase::Loading(_) => "loading",
        Phase::Ready(running) if running.unreachable.is_empty() => "ready",
        Phase::Ready(_) => "degraded",
        Phase::Draining => "draining",
        Phase::Replanning(_) => "replanning",
        Phase::Failed(_) => "failed",
    };
    let running = match &phase {
        Phase::Ready(running) => {
            let link = |(name, stats): &(String, Arc<TrafficStats>)| {
                json!({
                    "worker": name,
                    "sent_bytes": stats.sent_bytes.load(Ordering::Relaxed),
                    "received_bytes": stats.received_bytes.load(Ordering::Relaxed),
                    "cached_bytes": stats.cached_bytes.load(Ordering::Relaxed),
                })
            };
            json!({
                "generation": running.generation,
                "process": running.process,
                "loading_seconds": running.load_time.as_secs_f64(),
                "assignments": running.assignments,
                "unreachable": running.unreachable,
                "links": running.links.iter().map(link).collect::<Vec<_>>(),
            })
        }
        _ => json!({}),
    };
    PoolStatus {
        model: pool.spec().name.clone(),
        state,
        detail: phase.to_string(),
        active: pool.active(),
        keep_loaded: pool.spec().keep_loaded,
        running,
    }
}

/// The plan of a pool, for `tightwad pool plan`.
pub struct PoolPlan {
    /// The layers of each machine.
    pub assignments: Vec<LayerAssignment>,
    /// The policy's estimate of the time per token in nanoseconds.
    pub time_per_token_ns: u64,
    /// The name and version of the placement policy.
    pub plugin: String,
    /// The workers that answered, by name.
    pub workers: Vec<(String, ProbedWorker)>,
    /// The workers that did not answer, by name, each with its error.
    pub unreachable: Vec<(String, WorkerError)>,
}

/// Plans a pool without starting it.
///
/// # Errors
///
/// Returns [`PoolError`] if the file is not a model, a worker is unusable, or the model cannot be placed.
pub async fn plan_pool(spec: PoolSpec, plugin: Arc<PlacementPolicy>) -> Result<PoolPlan, PoolError> {
    let path = spec.path.clone();
    let model = tokio::task::spawn_blocking(move || ModelShape::read(&path)).await??;
    let label = plugin.label().to_owned();
    let launcher = PoolLauncher::new(spec, model, plugin, false)?;
    let probes = launcher.probe_workers().await;
    if let Some(error) = probes.unusable() {
        return Err(error.into());
    }
    let planned = launcher.plan(&probes).await?;
    let PlannedPool { plan, shape, machines, .. } = &planned;
    let name = |index: usize| launcher.spec.workers[index].name.clone();
    Ok(PoolPlan {
        assignments: assignments(plan, shape, machines),
        time_per_token_ns: plan.time_per_token_ns,
        plugin: label,
        workers: probes.usable.into_iter().map(|(index, worker)| (name(index), worker)).collect(),
        unreachable: probes.failed.into_iter().map(|(index, error)| (name(index), error)).collect(),
    })
}

/// The memory that a pool needs, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolMemory {
    /// All layers with their KV cache.
    pub layers: u64,
    /// The largest layer with its KV cache.
    pub largest_layer: u64,
    /// The compute buffer of each machine.
    pub compute_buffer: u64,
}

impl PoolMemory {
    /// The memory per machine with which a pool needs all of `machines`.
    #[must_use]
    pub fn per_machine(&self, machines: u64) -> u64 {
        self.layers / machines + self.largest_layer + self.compute_buffer
    }
}

/// Returns the memory that a pool needs.
///
/// # Errors
///
/// Returns [`PoolError`] if the file is not a model.
pub fn pool_memory(spec: &PoolSpec) -> Result<PoolMemory, PoolError> {
    let model = ModelShape::read(&spec.path)?;
    let context = layout::context_candidates(spec, &model).first().copied().unwrap_or_default();
    let shape = layout::shape(spec, &model, context);
    let bytes = |layer: &Layer| layer.weights + layer.cache;
    Ok(PoolMemory {
        layers: shape.layers.iter().map(bytes).sum(),
        largest_layer: shape.layers.iter().map(bytes).max().unwrap_or_default(),
        compute_buffer: shape.compute_buffer,
    })
}
