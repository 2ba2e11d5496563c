//! Looks up the models and manifests that peers have.

use std::collections::HashMap;

use futures_util::StreamExt;
use futures_util::stream::{self, FuturesUnordered};

use crate::disk::digest::Digest;
use crate::disk::manifest::Manifest;
use crate::disk::manifest_error::ManifestError;
use crate::net::client::{Client, RequestError};
use crate::net::peer::Peer;
use crate::net::wire::ModelListing;

/// Manifests that arrive at the same time: each one may have 64 MiB.
const MAX_CONCURRENT_MANIFESTS: usize = 4;

/// No peer has the manifest.
#[derive(Debug, thiserror::Error)]
#[error("no peer has the manifest of {root}: {}", .reasons.join("; "))]
pub struct ManifestUnavailable {
    /// The root of the manifest.
    pub root: Digest,
    /// The error of each peer.
    pub reasons: Vec<String>,
}

/// A model that some peers have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AvailableModel {
    /// The manifest's root.
    pub root: Digest,
    /// The model's name.
    pub name: String,
    /// Bytes of the file.
    pub size: u64,
    /// The peers that have it, completely or in part.
    pub peers: Vec<Peer>,
}

/// Fetches the manifest of `root` from the seeders, a few at a time. The first manifest with that root wins.
///
/// # Errors
///
/// When no seeder sends the manifest of `root`.
pub async fn fetch_manifest(
    client: &Client,
    peers: &[Peer],
    root: Digest,
) -> Result<Manifest, ManifestUnavailable> {
    let seeders = peers.iter().filter(|peer| matches!(peer, Peer::Seeder(_)));
    // A list, because an iterator with closures does not live across waits in a future that threads share.
    let requests: Vec<_> = seeders.map(|peer| manifest_from(client, peer, root)).collect();
    let mut replies = std::pin::pin!(stream::iter(requests).buffer_unordered(MAX_CONCURRENT_MANIFESTS));
    let mut reasons = Vec::new();
    while let Some(reply) = replies.next().await {
        match reply {
            Ok(manifest) => return Ok(manifest),
            Err(error) => reasons.push(error.to_string()),
        }
    }
    if reasons.is_empty() {
        reasons.push("no seeder was given".to_owned());
    }
    Err(ManifestUnavailable { root, reasons })
}

/// The reason why a peer's manifest is not used.
#[derive(Debug, thiserror::Error)]
enum ManifestReplyError {
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error(transparent)]
    Task(#[from] tokio::task::JoinError),
    #[error("{peer} sent the manifest of {root}")]
    OtherRoot { peer: Peer, root: Digest },
    #[error("{peer} sent an invalid manifest: {error}")]
    Invalid { peer: Peer, error: ManifestError },
}

async fn manifest_from(client: &Client, peer: &Peer, root: Digest) -> Result<Manifest, ManifestReplyError> {
    let json = client.manifest(peer, root).await?;
    // A large model's manifest is megabytes of digests, and parsing hashes them: too slow for an async
    // thread.
    match tokio::task::spawn_blocking(move || Manifest::parse(&json)).await? {
        Ok(manifest) if manifest.root() == root => Ok(manifest),
        Ok(manifest) => Err(ManifestReplyError::OtherRoot { peer: peer.clone(), root: manifest.root() }),
        Err(error) => Err(ManifestReplyError::Invalid { peer: peer.clone(), error }),
    }
}

/// Lists the models named `name` that `peers` have, or all models for `None`. Models with more peers come
/// first. The second list holds the errors of peers.
pub async fn find_models(
    client: &Client,
    peers: &[Peer],
    name: Option<&str>,
) -> (Vec<AvailableModel>, Vec<String>) {
    let seeders = peers.iter().filter(|peer| matches!(peer, Peer::Seeder(_)));
    let requests = seeders.map(|peer| async move { (peer, client.list_models(peer).await) });
    let replies: Vec<_> = requests.collect::<FuturesUnordered<_>>().collect().await;
    let (mut models, mut errors): (HashMap<Digest, AvailableModel>, Vec<String>) = Default::default();
    for (peer, reply) in replies {
        let listed = match reply {
            Ok(listed) => listed,
            Err(error) => {
                errors.push(error.to_string());
                continue;
            }
        };
        for model in listed.into_iter().filter(|model| name.is_none_or(|name| model.name == name)) {
            let ModelListing { root, name, size, .. } = model;
            let known = models.entry(root).or_insert(AvailableModel { root, name, size, peers: Vec::new() });
            // A peer counts once, however often it lists the model.
            if known.peers.last() != Some(peer) {
                known.peers.push(peer.clone());
            }
        }
    }
    let mut models: Vec<_> = models.into_values().collect();
    models.sort_by_key(|model| (std::cmp::Reverse(model.peers.len()), model.root));
    (models, errors)
}
