//! What people see of a pool.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde::Serialize;
use serde_json::{Value, json};
use tightwad_core::PoolSpec;
use tightwad_engine::pool::ModelShape;
use tightwad_modes::{Layer, PlacementPlugin};
use tightwad_sandbox::Loaded;

use crate::error::PoolError;
use crate::layout;
use crate::layout::{Placed, placed};
use crate::pooling::Pooling;
use crate::start::{Planned, Starter};
use crate::state::Phase;
use crate::survey::Found;

/// A pool as `GET /v1/tightwad/status` shows it.
#[derive(Debug, Clone, Serialize)]
pub struct PoolStatus {
    /// Its name.
    pub model: String,
    /// One word: `unloaded`, `loading`, `ready`, `degraded`, `draining`, `replanning`, `failed`.
    pub state: &'static str,
    /// The same for people.
    pub detail: String,
    /// Sessions that are open.
    pub active: usize,
    /// True: it is never unloaded to make room.
    pub pinned: bool,
    /// More of a pool that answers.
    #[serde(flatten)]
    pub running: Value,
}

/// What people see of it.
#[must_use]
pub fn status_of(pool: &Pooling) -> PoolStatus {
    let phase = pool.phase();
    let state = match &phase {
        Phase::Unloaded => "unloaded",
        Phase::Loading(_) => "loading",
        Phase::Ready(running) if running.absent.is_empty() => "ready",
        Phase::Ready(_) => "degraded",
        Phase::Draining => "draining",
        Phase::Replanning(_) => "replanning",
        Phase::Failed(_) => "failed",
    };
    let running = match &phase {
        Phase::Ready(running) => {
            let link = |(name, meter): &(String, Arc<tightwad_tunnel::Meter>)| {
                json!({
                    "worker": name,
                    "sent": meter.sent.load(Ordering::Relaxed),
                    "received": meter.received.load(Ordering::Relaxed),
                    "known": meter.known.load(Ordering::Relaxed),
                })
            };
            json!({
                "generation": running.generation,
                "process": running.process,
                "loading_seconds": running.loading.as_secs_f64(),
                "parts": running.parts,
                "absent": running.absent,
                "links": running.meters.iter().map(link).collect::<Vec<_>>(),
            })
        }
        _ => json!({}),
    };
    PoolStatus {
        model: pool.spec().name.clone(),
        state,
        detail: phase.to_string(),
        active: pool.active(),
        pinned: pool.spec().pinned,
        running,
    }
}

/// A plan for people: what `tightwad pool plan` shows.
pub struct PoolPlan {
    /// What lies where.
    pub parts: Vec<Placed>,
    /// Expected nanoseconds of a token; the plugin's guess.
    pub token: u64,
    /// Name and version of the plugin.
    pub plugin: String,
    /// The workers that answered, by name.
    pub workers: Vec<(String, Found)>,
}

/// Plans a pool without starting it.
///
/// # Errors
///
/// [`PoolError`], where the file is not a model, a worker refuses, or the model cannot be placed.
pub async fn plan_pool(spec: PoolSpec, plugin: Arc<PlacementPlugin>) -> Result<PoolPlan, PoolError> {
    let path = spec.path.clone();
    let model = tokio::task::spawn_blocking(move || ModelShape::read(&path)).await??;
    let label = plugin.label().to_owned();
    let starter = Starter::new(spec, model, plugin, false)?;
    let survey = starter.survey().await;
    if let Some(refused) = survey.refused() {
        return Err(refused.into());
    }
    let planned = starter.plan(&survey).await?;
    let Planned { plan, shape, machines, .. } = &planned;
    let named = |(index, found): (usize, Found)| (starter.spec.workers[index].name.clone(), found);
    Ok(PoolPlan {
        parts: placed(plan, shape, machines),
        token: plan.token,
        plugin: label,
        workers: survey.found.into_iter().map(named).collect(),
    })
}

/// The memory that a model takes of the machines of a pool, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolMemory {
    /// All layers, with their cache.
    pub layers: u64,
    /// The largest layer, with its cache.
    pub layer: u64,
    /// Each machine besides.
    pub scratch: u64,
}

impl PoolMemory {
    /// So much of each of `machines` that all of them are needed.
    #[must_use]
    pub fn each_of(&self, machines: u64) -> u64 {
        self.layers / machines + self.layer + self.scratch
    }
}

/// The memory that a pool takes.
///
/// # Errors
///
/// [`PoolError`], where the file is not a model.
pub fn memory_of(spec: &PoolSpec) -> Result<PoolMemory, PoolError> {
    let model = ModelShape::read(&spec.path)?;
    let context = layout::contexts(spec, &model).first().copied().unwrap_or_default();
    let shape = layout::shape(spec, &model, context);
    let bytes = |layer: &Layer| layer.weights + layer.cache;
    Ok(PoolMemory {
        layers: shape.layers.iter().map(bytes).sum(),
        layer: shape.layers.iter().map(bytes).max().unwrap_or_default(),
        scratch: shape.scratch,
    })
}
