//! What of a model is on this machine.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tightwad_swarm::disk::{Digest, Manifest, PIECE, Store, StoreError};

use crate::swarm::spec::{PullSpec, Pulled, SwarmError};

impl Pulled {
    /// The file at `path`, whole as it is; `None` where it is no longer what its manifest says.
    fn found(path: PathBuf, manifest: Manifest) -> Option<Self> {
        let manifest = Arc::new(manifest);
        let store = Arc::new(Store::whole(&path, manifest.clone()).ok()?);
        Some(Self { path, here: manifest.size(), manifest, reused: 0, summary: None, store })
    }
}

/// The model, where it is whole on this machine: the file itself, or one of the folder.
pub(crate) async fn here(spec: &PullSpec) -> Result<Option<Pulled>, SwarmError> {
    let (to, wanted) = (spec.to.clone(), spec.wanted.clone());
    blocking(move || {
        let known = if to.is_dir() { known_files(&to) } else { known(to).into_iter().collect() };
        let fits = known.into_iter().filter(|(_, manifest)| wanted.fits(manifest.name(), manifest.root()));
        Ok(fits.into_iter().find_map(|(path, manifest)| Pulled::found(path, manifest)))
    })
    .await
}

/// The file: `to` itself, or the model's name in the folder `to`.
pub(crate) fn place(to: &Path, manifest: &Manifest) -> PathBuf {
    let is_folder = to.is_dir() || to.as_os_str().as_encoded_bytes().ends_with(b"/");
    if is_folder {
        to.join(format!("{}.gguf", manifest.name().trim_end_matches(".gguf")))
    } else {
        to.to_owned()
    }
}

/// The finished file, where it is there already.
pub(crate) async fn already(path: &Path, root: Digest) -> Result<Option<Pulled>, SwarmError> {
    let path = path.to_owned();
    blocking(move || {
        let own = known(path).filter(|(_, manifest)| manifest.root() == root);
        Ok(own.and_then(|(path, manifest)| Pulled::found(path, manifest)))
    })
    .await
}

/// The part file, with what other files of this machine have of it.
pub(crate) async fn prepared(
    path: &Path,
    manifest: &Arc<Manifest>,
    (mut others, replace): (Vec<PathBuf>, bool),
) -> Result<(Arc<Store>, u64), SwarmError> {
    let (path, manifest) = (path.to_owned(), manifest.clone());
    blocking(move || {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        if let Some(folder) = folder {
            std::fs::create_dir_all(folder)
                .map_err(|error| SwarmError::Here(format!("cannot make {}: {error}", folder.display())))?;
        }
        // Said before anything is made or fetched, unless a pull was broken off at its very end.
        let taken = !replace && path.exists();
        if taken && !Store::is_begun(&path) {
            return Err(StoreError::Exists(path).into());
        }
        let store = Store::resume(&path, manifest)?;
        if taken && !store.is_whole() {
            return Err(StoreError::Exists(path).into());
        }
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
fn neighbours(path: &Path) -> impl Iterator<Item = PathBuf> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    known_files(folder).into_iter().map(|(path, _)| path)
}

/// Models in a folder with the manifests that are kept beside them; newest first.
fn known_files(folder: &Path) -> Vec<(PathBuf, Manifest)> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let models = entries.filter(|entry| entry.extension().is_some_and(|extension| extension == "gguf"));
    let mut known: Vec<_> = models.filter_map(known).collect();
    let age = |path: &Path| path.metadata().and_then(|file| file.modified()).ok();
    known.sort_by_cached_key(|(path, _)| std::cmp::Reverse((age(path), path.clone())));
    known
}

/// A file with the manifest that is kept beside it.
fn known(path: PathBuf) -> Option<(PathBuf, Manifest)> {
    Manifest::beside(&path).map(|manifest| (path, manifest))
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
pub(crate) async fn blocking<T: Send + 'static>(
    what: impl FnOnce() -> Result<T, SwarmError> + Send + 'static,
) -> Result<T, SwarmError> {
    let done = tokio::task::spawn_blocking(what).await;
    done.unwrap_or_else(|error| Err(SwarmError::Here(error.to_string())))
}
