//! Status and control of this host, for the HTTP server.

use std::sync::atomic::Ordering;
use std::sync::{Arc, RwLock, Weak};

use async_trait::async_trait;
use serde_json::{Value, json};
use tightwad_core::{Backend, BackendError, sync};
use tightwad_modes::{Consensus, Gate};
use tightwad_pool::pool_status;
use tightwad_pool::{Pool, Pools};
use tightwad_sandbox::Plugin;
use tightwad_serve::Control;

use crate::app::metrics::MetricSources;
use crate::app::plugin_folders::PluginFolders;
use crate::app::pulls::Pulls;

/// Reports and controls pools, pulls, modes and plugins.
pub(crate) struct HostControl {
    pub pools: Arc<Pools>,
    pub pulls: Arc<Pulls>,
    pub sources: Arc<RwLock<MetricSources>>,
    pub folders: Arc<PluginFolders>,
}

impl HostControl {
    fn find_pool(&self, model: &str) -> Option<Arc<Pool>> {
        // After a reload, two pools can have the same name. The script serves the newest one.
        self.pools.all().into_iter().rev().find(|pool| pool.spec().name == model)
    }
}

#[async_trait]
impl Control for HostControl {
    fn status(&self) -> Vec<Value> {
        let pools = self.pools.all();
        let pools = pools.iter().filter_map(|pool| serde_json::to_value(pool_status(pool)).ok());
        pools.chain(self.pulls.status()).collect()
    }

    fn modes(&self) -> Vec<Value> {
        let sources = sync::read(&self.sources);
        let consensus =
            sources.consensus.iter().filter_map(Weak::upgrade).map(|mode| consensus_status(&mode));
        let gates = sources.gates.iter().filter_map(Weak::upgrade).map(|mode| gate_status(&mode));
        consensus.chain(gates).collect()
    }

    fn plugins(&self) -> Vec<Value> {
        self.folders.plugins()
    }

    async fn load(&self, model: &str) -> Option<Result<(), BackendError>> {
        Some(self.find_pool(model)?.load().await.map(drop))
    }

    async fn unload(&self, model: &str) -> Option<()> {
        self.find_pool(model)?.unload().await;
        Some(())
    }
}

/// The status of a consensus.
fn consensus_status(mode: &Consensus) -> Value {
    let totals = mode.totals();
    let (audited, agreed) = mode.agreement().counts();
    let drafters: Vec<Value> = totals
        .race_stats()
        .into_iter()
        .map(|(name, races)| {
            let seconds = races.draft_time.as_secs_f64() / (races.drafts.max(1) as f64);
            json!({"name": name, "drafts": races.drafts, "misses": races.misses, "wins": races.wins,
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

/// The status of a gate.
fn gate_status(mode: &Gate) -> Value {
    let totals = mode.totals();
    json!({
        "mode": "gate", "name": mode.name(),
        "approved": totals.approved.load(Ordering::Relaxed),
        "corrected": totals.corrected.load(Ordering::Relaxed),
        "rejected": totals.rejected.load(Ordering::Relaxed),
        "unreviewed": totals.unreviewed.load(Ordering::Relaxed),
        "reviewer_work_saved": totals.saved_share(),
    })
}
