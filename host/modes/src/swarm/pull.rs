//! Swarm: models spread from machine to machine. Finds what is wanted, says what of it is here already, and
//! lets a component pick where the rest comes from.

use std::sync::Arc;
use std::time::Duration;

use tightwad_net::{Announced, discover_seeders};
use tightwad_swarm::disk::{Manifest, Store};
use tightwad_swarm::net::{Client, Peer, Progress, Pull, Summary, fetch_manifest, find};
use tokio::sync::{mpsc, watch};

use crate::swarm::component::SwarmPlugin;
use crate::swarm::files::{already, blocking, here, place, prepared};
use crate::swarm::spec::{PullSpec, Pulled, SwarmError};

/// How long machines on the local network are listened for when no peer was given.
const LISTEN: Duration = Duration::from_secs(3);

/// Pulls a model; `progress` is told how far it is. May be dropped at any time: what came is kept.
///
/// # Errors
///
/// [`SwarmError`] says what is missing, and what to do; what was fetched is kept.
pub async fn pull(
    mut spec: PullSpec,
    plugin: &Arc<SwarmPlugin>,
    progress: watch::Sender<Progress>,
) -> Result<Pulled, SwarmError> {
    // What is pinned by its digest and here needs nobody else.
    if spec.wanted.is_pinned()
        && let Some(pulled) = here(&spec).await?
    {
        return Ok(pulled);
    }
    let client = Client::new(spec.token.clone()).map_err(|error| SwarmError::Here(error.to_string()))?;
    let found = sought(&mut spec.peers).await?;
    let manifest = match asked(&client, &spec).await {
        Ok(manifest) => Arc::new(manifest),
        Err(error) => match here(&spec).await? {
            // There may be a newer one of that name, but nobody can say so.
            Some(pulled) => {
                tracing::warn!(%error, path = %pulled.path.display(), "nobody was asked; the model that is here is used");
                return Ok(pulled);
            }
            None => return Err(error),
        },
    };
    let path = place(&spec.to, &manifest);
    if let Some(pulled) = already(&path, manifest.root()).await? {
        return Ok(pulled);
    }
    let (store, reused) = prepared(&path, &manifest, (spec.reuse.clone(), spec.replace)).await?;
    let here = store.bytes_had();
    let mut pull =
        Pull::new(client.clone(), store.clone(), Box::new(plugin.picker(&spec.settings)), spec.peers.clone());
    (pull.limits, pull.seeding, pull.replace) = (spec.limits.clone(), spec.seeding.clone(), spec.replace);
    pull.found = found.map(follow);
    let Some(layers) = spec.layers.clone() else {
        let summary = Some(pull.run(progress).await?);
        return Ok(Pulled { path, manifest, here, reused, summary, store });
    };
    let first = first_piece(&spec, client, plugin, &store, &progress).await?;
    pull.wanted = Some(pieces_of(&store, layers).await?);
    let rest = pull.run(progress).await?;
    // It keeps that name while anything is missing.
    let path = if store.is_whole() { path } else { store.part() };
    Ok(Pulled { path, manifest, here, reused, summary: Some(both(first, rest)), store })
}

/// Where no seeder was given, adds those that make themselves known; others may do so later.
async fn sought(peers: &mut Vec<Peer>) -> Result<Option<Announced>, SwarmError> {
    if peers.iter().any(|peer| matches!(peer, Peer::Seeder(_))) {
        return Ok(None);
    }
    let (found, announced) = seeders(LISTEN).await?;
    peers.extend(found);
    Ok(Some(announced))
}

/// The seeders that make themselves known in so much time, and those that do later.
///
/// # Errors
///
/// Where this machine cannot receive multicasts.
pub async fn seeders(wait: Duration) -> Result<(Vec<Peer>, Announced), SwarmError> {
    let mut announced = discover_seeders()?;
    let (mut peers, until) = (Vec::new(), tokio::time::Instant::now() + wait);
    while let Ok(Some(peer)) = tokio::time::timeout_at(until, announced.next()).await {
        peers.extend(Peer::seeder(&peer).ok());
    }
    Ok((peers, announced))
}

/// Two pulls, one after the other, as one.
fn both(first: Summary, mut rest: Summary) -> Summary {
    rest.bytes += first.bytes;
    rest.wasted += first.wasted;
    rest.corrupt += first.corrupt;
    rest.duplicate += first.duplicate;
    rest.helped += first.helped;
    rest.took += first.took;
    rest.picker_failed = rest.picker_failed.or(first.picker_failed);
    for (peer, bytes) in first.from {
        match rest.from.iter_mut().find(|(own, _)| *own == peer) {
            Some((_, sum)) => *sum += bytes,
            None => rest.from.push((peer, bytes)),
        }
    }
    for peer in first.banned {
        if !rest.banned.contains(&peer) {
            rest.banned.push(peer);
        }
    }
    rest
}

/// Peers that make themselves known while a pull runs.
fn follow(mut announced: Announced) -> mpsc::Receiver<Peer> {
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

/// The manifest of what is wanted.
async fn asked(client: &Client, spec: &PullSpec) -> Result<Manifest, SwarmError> {
    if spec.peers.is_empty() {
        return Err(SwarmError::NoPeers);
    }
    if let Some(root) = spec.wanted.root() {
        return Ok(fetch_manifest(client, &spec.peers, root).await?);
    }
    let (found, reasons) = find(client, &spec.peers, spec.wanted.name()).await;
    let fits = found.into_iter().filter(|candidate| spec.wanted.fits(&candidate.name, candidate.root));
    let fits: Vec<_> = fits.collect();
    match fits.as_slice() {
        [] => Err(SwarmError::Unknown { wanted: spec.wanted.clone(), reasons }),
        [one] => Ok(fetch_manifest(client, &one.peers, one.root).await?),
        several => {
            let choices = several.iter().map(|one| format!("{}@{}", one.name, one.root)).collect();
            Err(SwarmError::Ambiguous { wanted: spec.wanted.clone(), choices })
        }
    }
}

/// Fetches the header alone: it says which pieces layers lie in.
async fn first_piece(
    spec: &PullSpec,
    client: Client,
    plugin: &Arc<SwarmPlugin>,
    store: &Arc<Store>,
    progress: &watch::Sender<Progress>,
) -> Result<Summary, SwarmError> {
    let picker = Box::new(plugin.picker(&spec.settings));
    let mut pull = Pull::new(client, store.clone(), picker, spec.peers.clone());
    (pull.limits, pull.wanted) = (spec.limits.clone(), Some(vec![0]));
    Ok(pull.run(progress.clone()).await?)
}

/// The pieces of some layers.
async fn pieces_of(store: &Arc<Store>, layers: std::ops::Range<u32>) -> Result<Vec<u32>, SwarmError> {
    let store = store.clone();
    blocking(move || {
        let manifest = store.manifest();
        let length = manifest.pieces().first().map_or(0, |piece| piece.length);
        let mut header = vec![0; usize::try_from(length).unwrap_or(0)];
        store.read(0, &mut header)?;
        Ok(manifest.pieces_of_layers(&header, layers)?)
    })
    .await
}
