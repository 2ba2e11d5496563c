//! What a pull is asked for, what came of it, and why it failed.

use std::path::PathBuf;
use std::sync::Arc;

use tightwad_core::Token;
use tightwad_net::DiscoveryError;
use tightwad_swarm::Wanted;
use tightwad_swarm::disk::{LayersError, Manifest, ManifestError, Store, StoreError};
use tightwad_swarm::net::{Limits, NoManifest, Peer, PullError, Seeding, Summary};

/// Why a model was not pulled.
#[derive(Debug, thiserror::Error)]
pub enum SwarmError {
    /// Nobody is there to be asked.
    #[error(
        "no peer was given, and none was found on this network: name one with --peer (or `peers` in a script)"
    )]
    NoPeers,
    /// Nobody has it.
    #[error("no peer has a model '{wanted}'{}", said(.reasons))]
    Unknown {
        /// What was looked for.
        wanted: Wanted,
        /// What peers said.
        reasons: Vec<String>,
    },
    /// Several models have that name.
    #[error("'{wanted}' can be {}: say which one, as NAME@DIGEST", .choices.join(" or "))]
    Ambiguous {
        /// What was looked for.
        wanted: Wanted,
        /// What it can be.
        choices: Vec<String>,
    },
    /// The manifest cannot be had.
    #[error(transparent)]
    Manifest(#[from] NoManifest),
    /// The manifest cannot be made.
    #[error(transparent)]
    Making(#[from] ManifestError),
    /// The layers cannot be told.
    #[error(transparent)]
    Layers(#[from] LayersError),
    /// The file.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The pull.
    #[error(transparent)]
    Pull(#[from] PullError),
    /// Seeders cannot be looked for.
    #[error(transparent)]
    Discovery(#[from] DiscoveryError),
    /// Something of this machine.
    #[error("{0}")]
    Here(String),
}

pub(crate) fn said(reasons: &[String]) -> String {
    if reasons.is_empty() { String::new() } else { format!(": {}", reasons.join("; ")) }
}

/// What is to be pulled, and how.
pub struct PullSpec {
    /// Which model.
    pub wanted: Wanted,
    /// Where to: a file, or a folder in which it gets its own name.
    pub to: PathBuf,
    /// Who may have it; empty: whoever is found on the local network.
    pub peers: Vec<Peer>,
    /// What seeders want to see.
    pub token: Option<Token>,
    /// Only what a worker with these layers needs.
    pub layers: Option<std::ops::Range<u32>>,
    /// Files of this machine that may have a part of it.
    pub reuse: Vec<PathBuf>,
    /// What the pull may take.
    pub limits: Limits,
    /// Where it is seeded meanwhile.
    pub seeding: Option<Seeding>,
    /// An older file is replaced.
    pub replace: bool,
    /// What the plugin reads.
    pub settings: String,
}

/// What a pull brought.
pub struct Pulled {
    /// The file; with `layers`, the part file.
    pub path: PathBuf,
    /// What it is made of.
    pub manifest: Arc<Manifest>,
    /// Bytes that were on this machine already, in a part file or in other files.
    pub here: u64,
    /// Bytes copied from other files.
    pub reused: u64,
    /// What came; absent where nothing was missing.
    pub summary: Option<Summary>,
    /// The store, to be seeded.
    pub store: Arc<Store>,
}
