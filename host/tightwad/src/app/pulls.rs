//! Pulls that other commands need first.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tightwad_core::{Size, sync};
use tightwad_modes::swarm::{PullSpec, Pulled};
use tightwad_modes::{SwarmPlugin, swarm};
use tightwad_script::SwarmSource;
use tightwad_swarm::net::{Limits, Peer, Progress, Seeding};
use tokio::sync::watch;

use crate::app::progress::{settled, watched};

/// How far the pulls that run are, by what is pulled.
#[derive(Debug, Default)]
pub(crate) struct Pulls(Mutex<BTreeMap<String, watch::Receiver<Progress>>>);

impl Pulls {
    /// Each of them, as the status shows it.
    pub(crate) fn status(&self) -> Vec<Value> {
        let pulls = sync::lock(&self.0);
        let shown = |(name, progress): (&String, &watch::Receiver<Progress>)| {
            let now = progress.borrow();
            let detail = format!(
                "pulling, {} of {}, {}/s from {} peers",
                Size(now.bytes_had),
                Size(now.bytes_wanted),
                Size(now.rate as u64),
                now.peers
            );
            json!({"model": name, "state": "pulling", "detail": detail, "active": 0, "bytes": now.bytes_had,
                "of_bytes": now.bytes_wanted, "bytes_a_second": now.rate as u64, "peers": now.peers})
        };
        pulls.iter().map(shown).collect()
    }
}

/// Pulls what a script or a node names into `to`, a folder or a file, where it is not there.
pub(crate) async fn pulled(
    (plugin, pulls): (&Arc<SwarmPlugin>, &Pulls),
    source: &SwarmSource,
    to: &Path,
    seeding: Option<Seeding>,
) -> Result<Pulled, String> {
    let peers: Result<Vec<Peer>, _> = source.peers.iter().map(|peer| Peer::seeder(peer)).collect();
    if to.extension().is_none() {
        // A folder, which may not be there yet.
        std::fs::create_dir_all(to).map_err(|error| format!("cannot make {}: {error}", to.display()))?;
    }
    let spec = PullSpec {
        wanted: source.wanted.clone(),
        to: to.to_owned(),
        peers: peers.map_err(|error| error.to_string())?,
        token: source.token.clone(),
        layers: None,
        reuse: Vec::new(),
        limits: Limits::default(),
        seeding,
        replace: false,
        settings: "{}".to_owned(),
    };
    let name = source.wanted.to_string();
    let done = watched(&name, false, |progress| {
        let mut running = sync::lock(&pulls.0);
        running.insert(name.clone(), progress.subscribe());
        swarm::pull(spec, plugin, progress)
    });
    let done = done.await;
    sync::lock(&pulls.0).remove(&name);
    let done = done.map_err(|error| error.to_string())?;
    eprintln!("{}", settled(&done));
    Ok(done)
}
