//! Swarm: models spread from machine to machine. Finds what is wanted, says what of it is here already, and
//! lets a component pick where the rest comes from.

mod wanted;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tightwad_swarm::disk::{LayersError, Manifest, ManifestError, PIECE, Store, StoreError};
use tightwad_swarm::net::{
    Client, Limits, NoManifest, Peer, Progress, Pull, PullError, Seeding, Summary, fetch_manifest, find,
};
use tokio::sync::{mpsc, watch};

pub use self::wanted::{Wanted, WantedError};
use crate::backend::{Announced, discover_seeders};
use crate::plugin::SwarmPlugin;

/// How long machines on the local network are listened for when no peer was given.
const LISTEN: Duration = Duration::from_secs(3);

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
    /// Something of this machine.
    #[error("{0}")]
    Here(String),
}

fn said(reasons: &[String]) -> String {
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
    pub token: Option<String>,
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
    let client = Client::new(spec.token.as_deref()).map_err(|error| SwarmError::Here(error.to_string()))?;
    let found = if spec.peers.iter().any(|peer| matches!(peer, Peer::Seeder(_))) {
        None
    } else {
        let mut announced = discover_seeders().map_err(SwarmError::Here)?;
        let until = tokio::time::Instant::now() + LISTEN;
        while let Ok(Some(peer)) = tokio::time::timeout_at(until, announced.next()).await {
            spec.peers.extend(Peer::seeder(&peer).ok());
        }
        Some(announced)
    };
    if spec.peers.is_empty() {
        return Err(SwarmError::NoPeers);
    }
    let manifest = Arc::new(manifest(&client, &spec).await?);
    let path = place(&spec.to, &manifest);
    if let Some(store) = already(&path, &manifest).await? {
        let here = manifest.size();
        return Ok(Pulled { path, manifest, here, reused: 0, summary: None, store });
    }
    let (store, reused) = prepared(&path, &manifest, spec.reuse.clone()).await?;
    let here = store.bytes_had();
    let mut pull =
        Pull::new(client, store.clone(), Box::new(plugin.picker(&spec.settings)), spec.peers.clone());
    (pull.limits, pull.seeding, pull.replace) = (spec.limits.clone(), spec.seeding.clone(), spec.replace);
    pull.found = found.map(follow);
    let mut summary = None;
    if let Some(layers) = spec.layers.clone() {
        summary = Some(first_piece(&spec, plugin, &store, &progress).await?);
        pull.wanted = Some(pieces_of(&store, layers).await?);
    }
    let mut done = pull.run(progress).await?;
    if let Some(first) = summary.take() {
        done.bytes += first.bytes;
        done.wasted += first.wasted;
        done.took += first.took;
    }
    Ok(Pulled { path, manifest, here, reused, summary: Some(done), store })
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
async fn manifest(client: &Client, spec: &PullSpec) -> Result<Manifest, SwarmError> {
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

/// The file: `to` itself, or the model's name in the folder `to`.
fn place(to: &Path, manifest: &Manifest) -> PathBuf {
    if to.is_dir() {
        to.join(format!("{}.gguf", manifest.name().trim_end_matches(".gguf")))
    } else {
        to.to_owned()
    }
}

/// The finished file, where it is there already.
async fn already(path: &Path, manifest: &Arc<Manifest>) -> Result<Option<Arc<Store>>, SwarmError> {
    let (path, manifest) = (path.to_owned(), manifest.clone());
    blocking(move || {
        let own = Manifest::beside(&path).filter(|own| own.root() == manifest.root());
        Ok(match own {
            Some(_) => Store::whole(&path, manifest).ok().map(Arc::new),
            None => None,
        })
    })
    .await
}

/// The part file, with what other files of this machine have of it.
async fn prepared(
    path: &Path,
    manifest: &Arc<Manifest>,
    mut others: Vec<PathBuf>,
) -> Result<(Arc<Store>, u64), SwarmError> {
    let (path, manifest) = (path.to_owned(), manifest.clone());
    blocking(move || {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        if let Some(folder) = folder {
            std::fs::create_dir_all(folder)
                .map_err(|error| SwarmError::Here(format!("cannot make {}: {error}", folder.display())))?;
        }
        let store = Store::resume(&path, manifest)?;
        // Files whose blocks are known need not be read to find out.
        others.extend(neighbours(&path));
        let mut reused = 0;
        for other in others {
            match store.reuse(&other) {
                Ok(bytes) => reused += bytes,
                Err(error) => tracing::warn!(file = %other.display(), %error, "nothing of it is used"),
            }
        }
        Ok((Arc::new(store), reused))
    })
    .await
}

/// Models in the same folder whose manifest is kept beside them, the file itself included; newest first.
fn neighbours(path: &Path) -> Vec<PathBuf> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let known = entries.filter(|entry| entry.extension().is_some_and(|extension| extension == "gguf"));
    let mut known: Vec<(SystemTime, PathBuf)> = known
        .filter(|entry| Manifest::beside(entry).is_some())
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry)))
        .collect();
    known.sort_by(|a, b| b.cmp(a));
    known.into_iter().map(|(_, path)| path).collect()
}

/// Fetches the header alone: it says which pieces layers lie in.
async fn first_piece(
    spec: &PullSpec,
    plugin: &Arc<SwarmPlugin>,
    store: &Arc<Store>,
    progress: &watch::Sender<Progress>,
) -> Result<Summary, SwarmError> {
    let client = Client::new(spec.token.as_deref()).map_err(|error| SwarmError::Here(error.to_string()))?;
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

/// The store of a file that is whole: its manifest is read, or made and kept beside it. `progress` is told of
/// every so many bytes that were hashed. Without a `largest_piece`, the manifest that is there will do.
///
/// # Errors
///
/// When the file cannot be read, or is no model.
pub async fn whole(
    path: &Path,
    name: Option<&str>,
    largest_piece: Option<u64>,
    progress: impl Fn(u64) + Send + Sync + 'static,
) -> Result<Arc<Store>, SwarmError> {
    let (path, name) = (path.to_owned(), name.map(str::to_owned));
    blocking(move || {
        let fits = |own: &Manifest| {
            largest_piece.is_none_or(|wanted| own.largest_piece() == wanted)
                && name.as_deref().is_none_or(|name| own.name() == name)
        };
        let manifest = match Manifest::beside(&path).filter(fits) {
            Some(manifest) => manifest,
            None => {
                let made = Manifest::of(&path, largest_piece.unwrap_or(PIECE), name.as_deref(), &progress)?;
                if let Err(error) = made.keep_beside(&path) {
                    tracing::warn!(%error, "it will be hashed again the next time");
                }
                made
            }
        };
        Ok(Arc::new(Store::whole(&path, Arc::new(manifest))?))
    })
    .await
}

/// Does `what` where it may take its time.
async fn blocking<T: Send + 'static>(
    what: impl FnOnce() -> Result<T, SwarmError> + Send + 'static,
) -> Result<T, SwarmError> {
    let done = tokio::task::spawn_blocking(what).await;
    done.unwrap_or_else(|error| Err(SwarmError::Here(error.to_string())))
}
