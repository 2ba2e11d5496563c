//! The parameters, the result and the errors of a pull.

use std::path::PathBuf;
use std::sync::Arc;

use tightwad_core::{Size, Token};
use tightwad_net::DiscoveryError;
use tightwad_swarm::ModelRef;
use tightwad_swarm::disk::{Digest, LayersError, Manifest, ManifestError, Store, StoreError};
use tightwad_swarm::net::{ManifestUnavailable, Peer, PullError, PullLimits, PullSummary, Seeding};

use crate::settings::Settings;

/// The reason why a pull failed.
#[derive(Debug, thiserror::Error)]
pub enum SwarmError {
    /// There is no peer to ask.
    #[error(
        "no peer was given, and none was found on this network. Name one with --peer (or `peers` in a script)."
    )]
    NoPeers,
    /// No peer has the model.
    #[error("no peer has a model '{wanted}'{}", join_reasons(.reasons))]
    NotFound {
        /// The wanted model.
        wanted: ModelRef,
        /// The peers' errors.
        reasons: Vec<String>,
    },
    /// Several models have the name.
    #[error("'{wanted}' is the name of several models: {}. Name one of them as NAME@DIGEST.", .choices.join(", "))]
    Ambiguous {
        /// The wanted model.
        wanted: ModelRef,
        /// The models, as NAME@DIGEST.
        choices: Vec<String>,
    },
    /// The model is large, and peers chose it.
    #[error(
        "'{wanted}' is a model of {}, and the peers decide which model that is. Pull more than {} by the full digest: {digest}.",
        Size(*size),
        Size(*max)
    )]
    TooLarge {
        /// The wanted model.
        wanted: ModelRef,
        /// Bytes of the file.
        size: u64,
        /// The greatest size without a full digest, in bytes.
        max: u64,
        /// The digest of the model that the peers have.
        digest: Digest,
    },
    /// No peer sent the manifest.
    #[error(transparent)]
    Manifest(#[from] ManifestUnavailable),
    /// The manifest of a local file cannot be made.
    #[error(transparent)]
    MakeManifest(#[from] ManifestError),
    /// The pieces of the layers cannot be determined.
    #[error(transparent)]
    Layers(#[from] LayersError),
    /// The file failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The pull failed.
    #[error(transparent)]
    Pull(#[from] PullError),
    /// This machine cannot search for seeders.
    #[error(transparent)]
    Discovery(#[from] DiscoveryError),
    /// Another failure of this machine.
    #[error("{0}")]
    Local(String),
}

fn join_reasons(reasons: &[String]) -> String {
    if reasons.is_empty() { String::new() } else { format!(": {}", reasons.join("; ")) }
}

/// The parameters of a pull.
pub struct PullSpec {
    /// The model.
    pub wanted: ModelRef,
    /// The destination: a file, or a folder. In a folder, the file gets the name in `wanted`, or a name that the digest
    /// covers.
    pub to: PathBuf,
    /// The peers that the user named. If the list has no seeder, the pull searches the local network.
    pub peers: Vec<Peer>,
    /// The token for the seeders in `peers`. Other seeders never receive it.
    pub token: Option<Token>,
    /// Pulls only the pieces that a worker with these layers needs.
    pub layers: Option<std::ops::Range<u32>>,
    /// Files of this machine that possibly have equal blocks.
    pub reuse: Vec<PathBuf>,
    /// The limits of the pull.
    pub limits: PullLimits,
    /// Seeds the pieces while the pull runs.
    pub seeding: Option<Seeding>,
    /// True if the pull replaces an existing file that the user named.
    pub replace: bool,
    /// The settings of the piece picker.
    pub settings: Settings,
}

/// The result of a pull.
pub struct PulledModel {
    /// The file. With `layers`, the part file.
    pub path: PathBuf,
    /// The file's manifest.
    pub manifest: Arc<Manifest>,
    /// The bytes that this machine had before, in a part file or in other files.
    pub local_bytes: u64,
    /// The part of `local_bytes` that was copied from other files.
    pub reused_bytes: u64,
    /// The summary of the transfer. `None` if the file was complete before.
    pub summary: Option<PullSummary>,
    /// The store, for seeding.
    pub store: Arc<Store>,
}
