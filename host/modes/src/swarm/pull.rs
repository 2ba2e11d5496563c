//! Pulls a model: finds its manifest, reuses the bytes on this machine, and lets a component pick the missing pieces.

use std::sync::Arc;
use std::time::Duration;

use tightwad_net::{SeederDiscovery, discover_seeders};
use tightwad_swarm::disk::{Manifest, Store};
use tightwad_swarm::net::{Client, Peer, Progress, Pull, PullSummary, fetch_manifest, find_models};
use tokio::sync::{mpsc, watch};

use crate::swarm::component::PiecePicker;
use crate::swarm::files::{file_path, find_local, open_existing, open_part, run_blocking};
use crate::swarm::spec::{PullSpec, PulledModel, SwarmError};

/// The time of the search for seeders on the local network if no peer was given.
const DISCOVERY_TIME: Duration = Duration::from_secs(3);

/// Pulls a model, and reports to `progress`. The future can be dropped at any time: received blocks stay on the disk.
///
/// # Errors
///
/// Returns [`SwarmError`]. Received blocks stay on the disk.
pub async fn pull(
    mut spec: PullSpec,
    picker: &Arc<PiecePicker>,
    progress: watch::Sender<Progress>,
) -> Result<PulledModel, SwarmError> {
    // A model that is pinned by its digest needs no peer if it is on this machine.
    if spec.wanted.is_pinned()
        && let Some(model) = find_local(&spec).await?
    {
        return Ok(model);
    }
    let client = Client::new(spec.token.clone()).map_err(|error| SwarmError::Local(error.to_string()))?;
    let announced = discover_if_no_seeder(&mut spec.peers).await?;
    let manifest = match find_manifest(&client, &spec).await {
        Ok(manifest) => Arc::new(manifest),
        Err(error) => match find_local(&spec).await? {
            // A newer model may have the same name, but no peer reported one.
            Some(model) => {
                tracing::warn!(%error, path = %model.path.display(), "no peer answered; using the local model");
                return Ok(model);
            }
            None => return Err(error),
        },
    };
    let path = file_path(&spec.to, &manifest);
    if let Some(model) = open_existing(&path, manifest.root()).await? {
        return Ok(model);
    }
    let (store, reused_bytes) = open_part(&path, &manifest, (spec.reuse.clone(), spec.replace)).await?;
    let local_bytes = store.have_bytes();
    let pull_picker = Box::new(picker.for_pull(&spec.settings));
    let mut pull = Pull::new(client.clone(), store.clone(), pull_picker, spec.peers.clone());
    (pull.limits, pull.seeding, pull.replace) = (spec.limits.clone(), spec.seeding.clone(), spec.replace);
    pull.discovered = announced.map(announced_peers);
    let Some(layers) = spec.layers.clone() else {
        let summary = Some(pull.run(progress).await?);
        return Ok(PulledModel { path, manifest, local_bytes, reused_bytes, summary, store });
    };
    let first = pull_header(&spec, client, picker, &store, &progress).await?;
    pull.wanted = Some(pieces_of_layers(&store, layers).await?);
    let second = pull.run(progress).await?;
    // An incomplete file keeps the name of a part file.
    let path = if store.is_complete() { path } else { store.part_path() };
    let summary = Some(add_summaries(first, second));
    Ok(PulledModel { path, manifest, local_bytes, reused_bytes, summary, store })
}

/// If no seeder was given, adds the seeders that announce themselves. Returns the announcements that come later.
async fn discover_if_no_seeder(peers: &mut Vec<Peer>) -> Result<Option<SeederDiscovery>, SwarmError> {
    if peers.iter().any(|peer| matches!(peer, Peer::Seeder(_))) {
        return Ok(None);
    }
    let (seeders, announced) = find_seeders(DISCOVERY_TIME).await?;
    peers.extend(seeders);
    Ok(Some(announced))
}

/// Returns the seeders that announce themselves within `duration`, and the announcements that come later.
///
/// # Errors
///
/// Returns [`SwarmError`] if this machine cannot receive multicast messages.
pub async fn find_seeders(duration: Duration) -> Result<(Vec<Peer>, SeederDiscovery), SwarmError> {
    let mut announced = discover_seeders()?;
    let (mut peers, until) = (Vec::new(), tokio::time::Instant::now() + duration);
    while let Ok(Some(peer)) = tokio::time::timeout_at(until, announced.next()).await {
        peers.extend(Peer::seeder(&peer).ok());
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

/// The seeders that announce themselves while a pull runs.
fn announced_peers(mut announced: SeederDiscovery) -> mpsc::Receiver<Peer> {
    let (sender, peers) = mpsc::channel(16);
    tokio::spawn(async move {
        while let Some(text) = announced.next().await {
            if let Ok(peer) = Peer::seeder(&text)
                && sender.send(peer).await.is_err()
            {
                return;
            }
        }
    });
    peers
}

/// Asks the peers for the manifest of the wanted model.
async fn find_manifest(client: &Client, spec: &PullSpec) -> Result<Manifest, SwarmError> {
    if spec.peers.is_empty() {
        return Err(SwarmError::NoPeers);
    }
    if let Some(root) = spec.wanted.root() {
        return Ok(fetch_manifest(client, &spec.peers, root).await?);
    }
    let (found, reasons) = find_models(client, &spec.peers, spec.wanted.name()).await;
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

/// Pulls the first piece, which has the header. The header lists the pieces of each layer.
async fn pull_header(
    spec: &PullSpec,
    client: Client,
    picker: &Arc<PiecePicker>,
    store: &Arc<Store>,
    progress: &watch::Sender<Progress>,
) -> Result<PullSummary, SwarmError> {
    let picker = Box::new(picker.for_pull(&spec.settings));
    let mut pull = Pull::new(client, store.clone(), picker, spec.peers.clone());
    (pull.limits, pull.wanted) = (spec.limits.clone(), Some(vec![0]));
    Ok(pull.run(progress.clone()).await?)
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
