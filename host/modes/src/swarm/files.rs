//! The files of a model on this machine.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tightwad_swarm::ModelRef;
use tightwad_swarm::disk::{
    DEFAULT_PIECE_SIZE, Digest, FileStamp, Manifest, ManifestError, Store, check_absent,
};
use tightwad_swarm::net::Progress;
use tokio::sync::watch;

use crate::swarm::spec::{PulledModel, SwarmError};

/// The model that a pull looks for on this machine.
#[derive(Clone)]
pub(crate) enum LocalModel {
    /// A model that the user wants.
    Wanted(ModelRef),
    /// The model with this root.
    Root(Digest),
}

impl LocalModel {
    fn matches(&self, manifest: &Manifest) -> bool {
        match self {
            // A full digest needs no name.
            Self::Wanted(wanted) => match wanted.root() {
                Some(root) => manifest.root() == root,
                None => wanted.matches(manifest.name(), manifest.root()),
            },
            Self::Root(root) => manifest.root() == *root,
        }
    }
}

/// Finds a complete copy of the model at `to`: the file itself, or a file of the folder. Hashes a file that may have
/// changed since it was hashed.
pub(crate) async fn find_local(
    to: &Path,
    model: LocalModel,
    progress: &watch::Sender<Progress>,
) -> Result<Option<PulledModel>, SwarmError> {
    let (to, progress) = (to.to_owned(), progress.clone());
    run_blocking(move || {
        // The file may have changed since it was hashed, so its sidecar is a hint.
        let read = Manifest::read_outdated_sidecar;
        let models = if to.is_dir() {
            models_in(&to, read)
        } else {
            read(&to).map(|manifest| (to, manifest)).into_iter().collect()
        };
        let matching = models.into_iter().filter(|(_, manifest)| model.matches(manifest));
        Ok(matching.into_iter().find_map(|(path, manifest)| open_verified(path, manifest, &progress)))
    })
    .await
}

/// Opens the complete file at `path`. `None` if the file does not match the manifest.
fn open_verified(
    path: PathBuf,
    manifest: Manifest,
    progress: &watch::Sender<Progress>,
) -> Option<PulledModel> {
    let manifest = Arc::new(manifest);
    let hashing = start_hashing(progress, manifest.size());
    let store = Store::open_verified(&path, manifest.clone(), &hashing)
        .inspect_err(|error| tracing::warn!(%error, "a local model is not used"))
        .ok()?;
    let (local_bytes, store) = (manifest.size(), Arc::new(store));
    Some(PulledModel { path, local_bytes, manifest, reused_bytes: 0, summary: None, store })
}

/// Returns a function that reports further hashed bytes, of at most `total` ones.
fn start_hashing(progress: &watch::Sender<Progress>, total: u64) -> impl Fn(u64) + Sync {
    progress.send_replace(Progress { wanted_bytes: total, ..Progress::default() });
    let progress = progress.clone();
    move |bytes| progress.send_modify(|progress| progress.have_bytes += bytes)
}

/// Opens the part file, and copies blocks into it that other files of this machine have. Returns the number of copied
/// bytes.
pub(crate) async fn open_part(
    path: &Path,
    manifest: &Arc<Manifest>,
    (mut others, replace): (Vec<PathBuf>, bool),
    progress: &watch::Sender<Progress>,
) -> Result<(Arc<Store>, u64), SwarmError> {
    let (path, manifest, progress) = (path.to_owned(), manifest.clone(), progress.clone());
    run_blocking(move || {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        if let Some(folder) = folder {
            std::fs::create_dir_all(folder)
                .map_err(|error| SwarmError::Local(format!("cannot create {}: {error}", folder.display())))?;
        }
        // An existing file is an error before any work starts, unless a pull was interrupted at its very end.
        let check_target = || if replace { Ok(()) } else { check_absent(&path) };
        if !Store::has_unfinished_pull(&path) {
            check_target()?;
        }
        let hashing = start_hashing(&progress, manifest.size());
        let store = Store::resume(&path, manifest, &hashing)?;
        if !store.is_complete() {
            check_target()?;
        }
        // The manifests of these files list their blocks, so the host finds equal blocks without reading the files.
        others.extend(neighbours(&path));
        let mut reused_bytes = 0;
        for other in others {
            match store.reuse(&other) {
                Ok(bytes) => reused_bytes += bytes,
                Err(error) => {
                    tracing::warn!(file = %other.display(), %error, "cannot reuse blocks of this file")
                }
            }
        }
        Ok((Arc::new(store), reused_bytes))
    })
    .await
}

/// The unchanged models with a manifest in the folder of `path`, the newest first. The file itself is included.
fn neighbours(path: &Path) -> impl Iterator<Item = PathBuf> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    models_in(folder, Manifest::read_sidecar).into_iter().map(|(path, _)| path)
}

/// The models in a folder that have a manifest by `read`, the newest first.
fn models_in(folder: &Path, read: fn(&Path) -> Option<Manifest>) -> Vec<(PathBuf, Manifest)> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let files = entries.filter(|entry| entry.extension().is_some_and(|extension| extension == "gguf"));
    let mut models: Vec<_> = files.filter_map(|path| read(&path).map(|manifest| (path, manifest))).collect();
    let modified = |path: &Path| path.metadata().and_then(|file| file.modified()).ok();
    models.sort_by_cached_key(|(path, _)| std::cmp::Reverse((modified(path), path.clone())));
    models
}

/// Opens a complete file. Reads its manifest from the sidecar, or makes it and writes the sidecar. Several
/// threads call `on_progress` with the number of bytes that they hashed since their last call. Without a
/// `piece_size`, a manifest of any piece size is used.
///
/// # Errors
///
/// Returns [`SwarmError`] if the file cannot be read or is not a model.
pub async fn open_complete(
    path: &Path,
    name: Option<&str>,
    piece_size: Option<u64>,
    on_progress: impl Fn(u64) + Send + Sync + 'static,
) -> Result<Arc<Store>, SwarmError> {
    let (path, name) = (path.to_owned(), name.map(str::to_owned));
    run_blocking(move || {
        let matches = |manifest: &Manifest| {
            piece_size.is_none_or(|size| manifest.largest_piece() == size)
                && name.as_deref().is_none_or(|name| manifest.name() == name)
        };
        let manifest = match Manifest::read_sidecar(&path).filter(matches) {
            Some(manifest) => manifest,
            None => {
                let piece_size = piece_size.unwrap_or(DEFAULT_PIECE_SIZE);
                let stamp = FileStamp::of(&path)
                    .map_err(|source| ManifestError::Read { path: path.clone(), source })?;
                let manifest = Manifest::build(&path, piece_size, name.as_deref(), &on_progress)?;
                if let Err(error) = manifest.write_sidecar(&path, stamp) {
                    tracing::warn!(%error, "cannot store the manifest; the next start hashes the file again");
                }
                manifest
            }
        };
        Ok(Arc::new(Store::open_complete(&path, Arc::new(manifest))?))
    })
    .await
}

/// Runs `work` on a thread that is allowed to block.
pub(crate) async fn run_blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SwarmError> + Send + 'static,
) -> Result<T, SwarmError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(SwarmError::Local(error.to_string())))
}
