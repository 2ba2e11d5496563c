//! Models that peers have: by root, and by name.

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use crate::disk::digest::Digest;
use crate::disk::manifest::Manifest;
use crate::disk::manifest_error::ManifestError;
use crate::net::client::{AskError, Client};
use crate::net::peer::Peer;

/// No peer has the manifest.
#[derive(Debug, thiserror::Error)]
#[error("no peer has the manifest of {root}: {}", .reasons.join("; "))]
pub struct NoManifest {
    /// Which one.
    pub root: Digest,
    /// What the peers said.
    pub reasons: Vec<String>,
}

/// A model that some peers have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The manifest's root.
    pub root: Digest,
    /// The model's name.
    pub name: String,
    /// Bytes of the file.
    pub size: u64,
    /// Who has it, whole or in part.
    pub peers: Vec<Peer>,
}

/// The manifest of `root`: from the peer that answers first with the right one.
///
/// # Errors
///
/// When no peer has it. A peer that sends another one is not believed.
pub async fn fetch_manifest(client: &Client, peers: &[Peer], root: Digest) -> Result<Manifest, NoManifest> {
    let seeders = peers.iter().filter(|peer| matches!(peer, Peer::Seeder(_)));
    let mut answers: FuturesUnordered<_> = seeders.map(|peer| manifest_of(client, peer, root)).collect();
    let mut reasons = Vec::new();
    while let Some(answer) = answers.next().await {
        match answer {
            Ok(manifest) => return Ok(manifest),
            Err(error) => reasons.push(error.to_string()),
        }
    }
    if reasons.is_empty() {
        reasons.push("no seeder was given".to_owned());
    }
    Err(NoManifest { root, reasons })
}

/// Why one peer's manifest is not used.
#[derive(Debug, thiserror::Error)]
enum BadAnswer {
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error(transparent)]
    Task(#[from] tokio::task::JoinError),
    #[error("{peer} sent the manifest of {root}")]
    OtherRoot { peer: Peer, root: Digest },
    #[error("{peer} sent no manifest: {error}")]
    Defect { peer: Peer, error: ManifestError },
}

async fn manifest_of(client: &Client, peer: &Peer, root: Digest) -> Result<Manifest, BadAnswer> {
    let json = client.manifest(peer, root).await?;
    // A manifest of a large model is megabytes of digests, and parsing hashes them.
    match tokio::task::spawn_blocking(move || Manifest::parse(&json)).await? {
        Ok(manifest) if manifest.root() == root => Ok(manifest),
        Ok(manifest) => Err(BadAnswer::OtherRoot { peer: peer.clone(), root: manifest.root() }),
        Err(error) => Err(BadAnswer::Defect { peer: peer.clone(), error }),
    }
}

/// The models named `name` that `peers` have (all models for `None`), and what went wrong on the way. Those
/// that most peers have come first.
pub async fn find(client: &Client, peers: &[Peer], name: Option<&str>) -> (Vec<Candidate>, Vec<String>) {
    let seeders = peers.iter().filter(|peer| matches!(peer, Peer::Seeder(_)));
    let asked = seeders.map(|peer| async move { (peer, client.list(peer).await) });
    let answers: Vec<_> = asked.collect::<FuturesUnordered<_>>().collect().await;
    let (mut found, mut reasons): (Vec<Candidate>, Vec<String>) = (Vec::new(), Vec::new());
    for (peer, answer) in answers {
        let listed = match answer {
            Ok(listed) => listed,
            Err(error) => {
                reasons.push(error.to_string());
                continue;
            }
        };
        for model in listed.into_iter().filter(|model| name.is_none_or(|name| model.name == name)) {
            match found.iter_mut().find(|known| known.root == model.root) {
                Some(known) => known.peers.push(peer.clone()),
                None => found.push(Candidate {
                    root: model.root,
                    name: model.name,
                    size: model.size,
                    peers: vec![peer.clone()],
                }),
            }
        }
    }
    found.sort_by_key(|candidate| (std::cmp::Reverse(candidate.peers.len()), candidate.root));
    (found, reasons)
}
