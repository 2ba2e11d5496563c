//! The files of a model on this machine.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tightwad_swarm::disk::{DEFAULT_PIECE_SIZE, Digest, Manifest, Store, StoreError};

use crate::swarm::spec::{PullSpec, PulledModel, SwarmError};

/// Opens the complete file at `path`. `None` if the file no longer matches its manifest.
fn open_matching(path: PathBuf, manifest: Manifest) -> Option<PulledModel> {
    let manifest = Arc::new(manifest);
    let store = Arc::new(Store::open_complete(&path, manifest.clone()).ok()?);
    Some(PulledModel { path, local_bytes: manifest.size(), manifest, reused_bytes: 0, summary: None, store })
}

/// Finds a complete copy of the model on this machine: the file itself, or a file of the folder.
pub(crate) async fn find_local(spec: &PullSpec) -> Result<Option<PulledModel>, SwarmError> {
    let (to, wanted) = (spec.to.clone(), spec.wanted.clone());
    run_blocking(move || {
        let models = if to.is_dir() { models_in(&to) } else { with_manifest(to).into_iter().collect() };
        let matching =
            models.into_iter().filter(|(_, manifest)| wanted.matches(manifest.name(), manifest.root()));
        Ok(matching.into_iter().find_map(|(path, manifest)| open_matching(path, manifest)))
    })
    .await
}

/// The path of the file: `to` itself, or a file with the model's name in the folder `to`.
pub(crate) fn file_path(to: &Path, manifest: &Manifest) -> PathBuf {
    let is_folder = to.is_dir() || to.as_os_str().as_encoded_bytes().ends_with(b"/");
    if is_folder {
        to.join(format!("{}.gguf", manifest.name().trim_end_matches(".gguf")))
    } else {
        to.to_owned()
    }
}

/// Opens the file at `path` if it is complete and has the digest `root`.
pub(crate) async fn open_existing(path: &Path, root: Digest) -> Result<Option<PulledModel>, SwarmError> {
    let path = path.to_owned();
    run_blocking(move || {
        let existing = with_manifest(path).filter(|(_, manifest)| manifest.root() == root);
        Ok(existing.and_then(|(path, manifest)| open_matching(path, manifest)))
    })
    .await
}

/// Opens the part file, and copies blocks into it that other files of this machine have. Returns the number of copied
/// bytes.
pub(crate) async fn open_part(
    path: &Path,
    manifest: &Arc<Manifest>,
    (mut others, replace): (Vec<PathBuf>, bool),
) -> Result<(Arc<Store>, u64), SwarmError> {
    let (path, manifest) = (path.to_owned(), manifest.clone());
    run_blocking(move || {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        if let Some(folder) = folder {
            std::fs::create_dir_all(folder)
                .map_err(|error| SwarmError::Local(format!("cannot create {}: {error}", folder.display())))?;
        }
        // An existing file is an error before any work starts, unless a pull was interrupted at its very end.
        let exists = !replace && path.exists();
        if exists && !Store::has_unfinished_pull(&path) {
            return Err(StoreError::Exists(path).into());
        }
        let store = Store::resume(&path, manifest)?;
        if exists && !store.is_complete() {
            return Err(StoreError::Exists(path).into());
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

/// The models with a manifest in the folder of `path`, the newest first. The file itself is included.
fn neighbours(path: &Path) -> impl Iterator<Item = PathBuf> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    models_in(folder).into_iter().map(|(path, _)| path)
}

/// The models with a manifest in a folder, the newest first.
fn models_in(folder: &Path) -> Vec<(PathBuf, Manifest)> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let files = entries.filter(|entry| entry.extension().is_some_and(|extension| extension == "gguf"));
    let mut models: Vec<_> = files.filter_map(with_manifest).collect();
    let modified = |path: &Path| path.metadata().and_then(|file| file.modified()).ok();
    models.sort_by_cached_key(|(path, _)| std::cmp::Reverse((modified(path), path.clone())));
    models
}

/// A file with the manifest of its sidecar.
fn with_manifest(path: PathBuf) -> Option<(PathBuf, Manifest)> {
    Manifest::read_sidecar(&path).map(|manifest| (path, manifest))
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
                let manifest = Manifest::build(
                    &path,
                    piece_size.unwrap_or(DEFAULT_PIECE_SIZE),
                    name.as_deref(),
                    &on_progress,
                )?;
                if let Err(error) = manifest.write_sidecar(&path) {
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
