//! Pulls a model: finds its manifest, reuses the bytes on this machine, and lets a component pick the missing pieces.

use std::sync::Arc;
use std::time::Duration;

use tightwad_net::tls::Identity;
use tightwad_net::{SeederDiscovery, discover_seeders};
use tightwad_swarm::ModelRef;
use tightwad_swarm::disk::{Manifest, Store};
use tightwad_swarm::net::{
    Client, MAX_PEERS_PER_ADDRESS, Peer, Progress, Pull, PullSummary, fetch_manifest, find_models,
};
use tokio::sync::{mpsc, watch};

use crate::swarm::component::PiecePicker;
use crate::swarm::files::{LocalModel, find_local, open_part, run_blocking};
use crate::swarm::names::{file_path, is_named_by_user, with_local_name};
use crate::swarm::spec::{PullSpec, PulledModel, SwarmError};

/// The time of the search for seeders on the local network if no peer was given.
const DISCOVERY_TIME: Duration = Duration::from_secs(3);

/// Largest number of seeders that a search returns: anyone on the network can announce seeders.
const MAX_DISCOVERED_SEEDERS: usize = 64;
/// Largest model that a pull fetches without its full digest: peers then decide what it is.
const MAX_UNPINNED_BYTES: u64 = 256 << 30;

/// Pulls a model, and reports to `progress`. The future can be dropped at any time: received blocks stay on the disk.
///
/// # Errors
///
/// Returns [`SwarmError`]. Received blocks stay on the disk.
pub async fn pull(
    spec: PullSpec,
    picker: &Arc<PiecePicker>,
    progress: watch::Sender<Progress>,
) -> Result<PulledModel, SwarmError> {
    let wanted = LocalModel::Wanted(spec.wanted.clone());
    // A model that is pinned by its digest needs no peer if it is on this machine.
    if spec.wanted.is_pinned()
        && let Some(model) = find_local(&spec.to, wanted.clone(), &progress).await?
    {
        return Ok(model);
    }
    let client = Client::new(spec.token.clone(), &spec.peers, machine_key());
    let client = client.map_err(|error| SwarmError::Local(error.to_string()))?;
    let mut discovery = Discovery::search_unless_named(&spec.peers).await?;
    let manifest = match find_manifest(&client, &spec, &discovery.found).await {
        Ok(manifest) => with_local_name(manifest, &spec.wanted),
        Err(error) => match find_local(&spec.to, wanted, &progress).await? {
            // A newer model may have the same name, but no peer reported one.
            Some(model) => {
                tracing::warn!(%error, path = %model.path.display(), "no peer answered; using the local model");
                return Ok(model);
            }
            None => return Err(error),
        },
    };
    check_size(&spec.wanted, &manifest, MAX_UNPINNED_BYTES)?;
    if let Some(model) = find_local(&spec.to, LocalModel::Root(manifest.root()), &progress).await? {
        return Ok(model);
    }
    fetch(&spec, (client, picker), Arc::new(manifest), &mut discovery, progress).await
}

/// Fetches the pieces of `manifest` that are not on this machine.
async fn fetch(
    spec: &PullSpec,
    (client, picker): (Client, &Arc<PiecePicker>),
    manifest: Arc<Manifest>,
    discovery: &mut Discovery,
    progress: watch::Sender<Progress>,
) -> Result<PulledModel, SwarmError> {
    let path = file_path(&spec.to, &manifest, &spec.wanted);
    let replace = spec.replace && is_named_by_user(&spec.to, &spec.wanted);
    let (store, reused_bytes) = open_part(&path, &manifest, (spec.reuse.clone(), replace), &progress).await?;
    let local_bytes = store.have_bytes();
    let new_pull = |discovered| {
        let picker = Box::new(picker.for_pull(&spec.settings));
        let mut pull = Pull::new(client.clone(), store.clone(), picker, spec.peers.clone());
        (pull.limits, pull.discovered, pull.replace) = (spec.limits.clone(), discovered, replace);
        pull
    };
    let mut summary = None;
    let mut wanted_pieces = None;
    if let Some(layers) = spec.layers.clone() {
        // The first piece is the header, which lists the pieces of each layer.
        let mut header = new_pull(discovery.found_so_far());
        header.wanted = Some(vec![0]);
        summary = Some(header.run(progress.clone()).await?);
        wanted_pieces = Some(pieces_of_layers(&store, layers).await?);
    }
    let mut pull = new_pull(discovery.all());
    (pull.wanted, pull.seeding) = (wanted_pieces, spec.seeding.clone());
    let last = pull.run(progress).await?;
    // An incomplete file keeps the name of a part file.
    let path = if store.is_complete() { path } else { store.part_path() };
    let summary = Some(match summary {
        Some(first) => add_summaries(first, last),
        None => last,
    });
    Ok(PulledModel { path, manifest, local_bytes, reused_bytes, summary, store })
}

/// Refuses a model of more than `max_unpinned_bytes` that peers chose.
fn check_size(wanted: &ModelRef, manifest: &Manifest, max_unpinned_bytes: u64) -> Result<(), SwarmError> {
    let (size, max) = (manifest.size(), max_unpinned_bytes);
    if wanted.root().is_some() || size <= max {
        return Ok(());
    }
    let (wanted, digest) = (wanted.clone(), manifest.root());
    Err(SwarmError::TooLarge { wanted, size, max, digest })
}

/// The seeders that announce themselves. They never receive the token.
struct Discovery {
    found: Vec<Peer>,
    /// The running search. `None`: the user named a seeder.
    announced: Option<SeederDiscovery>,
}

impl Discovery {
    /// Searches the local network if the user named no seeder.
    async fn search_unless_named(peers: &[Peer]) -> Result<Self, SwarmError> {
        if peers.iter().any(|peer| matches!(peer, Peer::Seeder(_))) {
            return Ok(Self { found: Vec::new(), announced: None });
        }
        let (found, announced) = find_seeders(DISCOVERY_TIME).await?;
        Ok(Self { found, announced: Some(announced) })
    }

    /// The found seeders, for a pull.
    fn found_so_far(&self) -> Option<mpsc::Receiver<Peer>> {
        let (sender, receiver) = mpsc::channel(self.found.len().max(1));
        for peer in &self.found {
            // The channel has room for all of them.
            let _ = sender.try_send(peer.clone());
        }
        Some(receiver)
    }

    /// The found seeders, and those that announce themselves while the pull runs.
    fn all(&mut self) -> Option<mpsc::Receiver<Peer>> {
        let Some(mut announced) = self.announced.take() else { return self.found_so_far() };
        let (sender, receiver) = mpsc::channel(16);
        let found = std::mem::take(&mut self.found);
        tokio::spawn(async move {
            for peer in found {
                if sender.send(peer).await.is_err() {
                    return;
                }
            }
            while let Some(text) = announced.next().await {
                if let Ok(peer) = Peer::seeder(&text)
                    && sender.send(peer).await.is_err()
                {
                    return;
                }
            }
        });
        Some(receiver)
    }
}

/// The key of this machine. Without it, a pull reaches plain seeders only.
pub fn machine_key() -> Option<Identity> {
    let key = Identity::of_user();
    key.inspect_err(|error| tracing::warn!(%error, "encrypted seeders cannot be used")).ok()
}

/// Returns the seeders that announce themselves within `duration`, and the announcements that come later.
///
/// # Errors
///
/// Returns [`SwarmError`] if this machine cannot receive multicast messages.
pub async fn find_seeders(duration: Duration) -> Result<(Vec<Peer>, SeederDiscovery), SwarmError> {
    let mut announced = discover_seeders()?;
    let (mut peers, until) = (Vec::<Peer>::new(), tokio::time::Instant::now() + duration);
    while peers.len() < MAX_DISCOVERED_SEEDERS
        && let Ok(Some(text)) = tokio::time::timeout_at(until, announced.next()).await
    {
        let Ok(peer) = Peer::seeder(&text) else { continue };
        let at_address = peers.iter().filter(|other| other.host() == peer.host()).count();
        if at_address < MAX_PEERS_PER_ADDRESS && !peers.contains(&peer) {
            peers.push(peer);
        }
    }
    Ok((peers, announced))
}

/// The summary of two pulls, one after the other.
fn add_summaries(first: PullSummary, mut second: PullSummary) -> PullSummary {
    second.kept_bytes += first.kept_bytes;
    second.wasted_bytes += first.wasted_bytes;
    second.corrupt_blocks += first.corrupt_blocks;
    second.duplicate_blocks += first.duplicate_blocks;
    second.picker_timeouts += first.picker_timeouts;
    second.elapsed += first.elapsed;
    second.picker_error = second.picker_error.or(first.picker_error);
    for (peer, bytes) in first.bytes_by_peer {
        match second.bytes_by_peer.iter_mut().find(|(other, _)| *other == peer) {
            Some((_, sum)) => *sum += bytes,
            None => second.bytes_by_peer.push((peer, bytes)),
        }
    }
    for peer in first.banned_peers {
        if !second.banned_peers.contains(&peer) {
            second.banned_peers.push(peer);
        }
    }
    second
}

/// Asks the peers for the manifest of the wanted model.
async fn find_manifest(client: &Client, spec: &PullSpec, found: &[Peer]) -> Result<Manifest, SwarmError> {
    let peers: Vec<Peer> = spec.peers.iter().chain(found).cloned().collect();
    if peers.is_empty() {
        return Err(SwarmError::NoPeers);
    }
    if let Some(root) = spec.wanted.root() {
        return Ok(fetch_manifest(client, &peers, root).await?);
    }
    let (found, reasons) = find_models(client, &peers, spec.wanted.name()).await;
    let matching = found.into_iter().filter(|model| spec.wanted.matches(&model.name, model.root));
    let matching: Vec<_> = matching.collect();
    match matching.as_slice() {
        [] => Err(SwarmError::NotFound { wanted: spec.wanted.clone(), reasons }),
        [model] => Ok(fetch_manifest(client, &model.peers, model.root).await?),
        several => {
            let choices = several.iter().map(|model| format!("{}@{}", model.name, model.root)).collect();
            Err(SwarmError::Ambiguous { wanted: spec.wanted.clone(), choices })
        }
    }
}

/// The pieces of a range of layers.
async fn pieces_of_layers(store: &Arc<Store>, layers: std::ops::Range<u32>) -> Result<Vec<u32>, SwarmError> {
    let store = store.clone();
    run_blocking(move || {
        let manifest = store.manifest();
        let length = manifest.pieces().first().map_or(0, |piece| piece.length);
        let mut header = vec![0; usize::try_from(length).unwrap_or(0)];
        store.read(0, &mut header)?;
        Ok(manifest.pieces_of_layers(&header, layers)?)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_full_digest_permits_any_size() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m");
        std::fs::write(&path, [7; 5000]).unwrap();
        let manifest = Manifest::build(&path, 4096, None, &|_| ()).unwrap();
        let digest = manifest.root().to_string();
        let check = |wanted: &str, max| check_size(&wanted.parse().unwrap(), &manifest, max);
        check("m", 5000).unwrap();
        check(&digest, 4999).unwrap();
        check(&format!("m@{digest}"), 4999).unwrap();
        for wanted in ["m", &format!("m@{}", &digest[..12])] {
            let error = check(wanted, 4999).unwrap_err().to_string();
            assert!(error.contains(&digest) && error.contains("4.9 KiB"), "{error}");
        }
    }
}
