//! What this process is doing, for the server.

use std::sync::atomic::Ordering;
use std::sync::{Arc, RwLock, Weak};

use async_trait::async_trait;
use serde_json::{Value, json};
use tightwad_core::{Backend, BackendError, sync};
use tightwad_modes::{Consensus, Gate};
use tightwad_pool::status_of;
use tightwad_pool::{Pooling, Pools};
use tightwad_sandbox::Loaded;
use tightwad_serve::Control;

use crate::app::gauges::Observed;
use crate::app::pulls::Pulls;
use crate::app::shelf::Shelf;

/// Pools by name, modes and plugins.
pub(crate) struct HostControl {
    pub pools: Arc<Pools>,
    pub pulls: Arc<Pulls>,
    pub observed: Arc<RwLock<Observed>>,
    pub shelf: Arc<Shelf>,
}

impl HostControl {
    fn find(&self, model: &str) -> Option<Arc<Pooling>> {
        // Of two with the same name, the one that was made last is what the script serves now.
        self.pools.all().into_iter().rev().find(|pool| pool.spec().name == model)
    }
}

#[async_trait]
impl Control for HostControl {
    fn status(&self) -> Vec<Value> {
        let pools = self.pools.all();
        let pools = pools.iter().filter_map(|pool| serde_json::to_value(status_of(pool)).ok());
        pools.chain(self.pulls.status()).collect()
    }

    fn modes(&self) -> Vec<Value> {
        let observed = sync::read(&self.observed);
        let consensus = observed.consensus.iter().filter_map(Weak::upgrade).map(|mode| consensus(&mode));
        let gates = observed.gates.iter().filter_map(Weak::upgrade).map(|mode| gate(&mode));
        consensus.chain(gates).collect()
    }

    fn plugins(&self) -> Vec<Value> {
        self.shelf.plugins()
    }

    async fn load(&self, model: &str) -> Option<Result<(), BackendError>> {
        Some(self.find(model)?.load().await.map(drop))
    }

    async fn unload(&self, model: &str) -> Option<()> {
        self.find(model)?.unload().await;
        Some(())
    }
}

/// What a consensus is doing, and what it costs.
fn consensus(mode: &Consensus) -> Value {
    let totals = mode.totals();
    let (audited, agreed) = mode.agreement().counts();
    let drafters: Vec<Value> = totals
        .raced()
        .into_iter()
        .map(|(name, raced)| {
            let seconds = raced.took.as_secs_f64() / (raced.answers.max(1) as f64);
            json!({"name": name, "answers": raced.answers, "misses": raced.misses, "wins": raced.wins,
                "mean_seconds": seconds})
        })
        .collect();
    json!({
        "mode": "consensus", "name": mode.name(), "rule": mode.rule(),
        "unverified_tokens": totals.unverified.load(Ordering::Relaxed),
        "accepted_tokens": totals.accepted.load(Ordering::Relaxed),
        "audited_tokens": audited, "agreed_tokens": agreed, "agreement": mode.agreement().share(),
        "drafters": drafters, "policy": mode.policy().map(|policy| policy.plugin().label().to_owned()),
    })
}

/// What a gate is doing, and what it saves.
fn gate(mode: &Gate) -> Value {
    let totals = mode.totals();
    json!({
        "mode": "gate", "name": mode.name(),
        "approved": totals.approved.load(Ordering::Relaxed),
        "corrected": totals.corrected.load(Ordering::Relaxed),
        "rejected": totals.rejected.load(Ordering::Relaxed),
        "unreviewed": totals.unreviewed.load(Ordering::Relaxed),
        "reviewer_work_saved": totals.saved(),
    })
}
