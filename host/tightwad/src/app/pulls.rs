//! Pulls that a script or a node waits for.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tightwad_core::{Size, sync};
use tightwad_modes::swarm::{PullSpec, PulledModel};
use tightwad_modes::{PiecePicker, Settings, swarm};
use tightwad_script::SwarmSource;
use tightwad_swarm::net::{Peer, Progress, PullLimits, Seeding};
use tokio::sync::watch;

use crate::app::progress::{summary, with_progress};

/// The progress of running pulls, by model name.
#[derive(Debug, Default)]
pub(crate) struct Pulls(Mutex<BTreeMap<String, watch::Receiver<Progress>>>);

impl Pulls {
    /// The running pulls as JSON.
    pub(crate) fn status(&self) -> Vec<Value> {
        let pulls = sync::lock(&self.0);
        let status = |(name, progress): (&String, &watch::Receiver<Progress>)| {
            let progress = progress.borrow();
            let detail = format!(
                "pulling, {} of {}, {}/s from {} peers",
                Size(progress.have_bytes),
                Size(progress.wanted_bytes),
                Size(progress.bytes_per_second as u64),
                progress.peers
            );
            json!({"model": name, "state": "pulling", "detail": detail, "active": 0, "bytes": progress.have_bytes,
                "total_bytes": progress.wanted_bytes, "bytes_per_second": progress.bytes_per_second as u64, "peers": progress.peers})
        };
        pulls.iter().map(status).collect()
    }
}

/// Pulls `source` into `to`, a folder or a file, unless the file exists.
pub(crate) async fn pull(
    (picker, pulls): (&Arc<PiecePicker>, &Pulls),
    source: &SwarmSource,
    to: &Path,
    seeding: Option<Seeding>,
) -> Result<PulledModel, String> {
    let peers: Result<Vec<Peer>, _> = source.peers.iter().map(|peer| Peer::seeder(peer)).collect();
    if to.extension().is_none() {
        // A path without an extension is a folder, which can be missing.
        std::fs::create_dir_all(to).map_err(|error| format!("cannot create {}: {error}", to.display()))?;
    }
    let spec = PullSpec {
        wanted: source.model.clone(),
        to: to.to_owned(),
        peers: peers.map_err(|error| error.to_string())?,
        token: source.token.clone(),
        layers: None,
        reuse: Vec::new(),
        limits: PullLimits::default(),
        seeding,
        replace: false,
        settings: Settings::default(),
    };
    let name = source.model.to_string();
    let pulled = with_progress(&name, false, |progress| {
        let mut running = sync::lock(&pulls.0);
        running.insert(name.clone(), progress.subscribe());
        swarm::pull(spec, picker, progress)
    });
    let pulled = pulled.await;
    sync::lock(&pulls.0).remove(&name);
    let pulled = pulled.map_err(|error| error.to_string())?;
    eprintln!("{}", summary(&pulled));
    Ok(pulled)
}
