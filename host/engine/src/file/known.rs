//! The model files that passed a trial: one empty file per model, named by a digest.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use tightwad_core::to_hex;

use crate::file::level::Level;
use crate::file::model_file::ModelFile;

/// The version of the checks. A new version of llama.cpp or of the trial needs a new number.
const CHECKS: u32 = 1;

/// True if the files passed a trial of `level`, and their content has not changed since.
pub(crate) fn is_known(folder: &Path, model: &ModelFile, level: Level) -> bool {
    level.and_above().any(|level| marker(folder, model, level).is_some_and(|marker| marker.exists()))
}

/// Records that the files passed a trial of `level`. Without a cache, the next load tries them again.
pub(crate) fn remember(folder: &Path, model: &ModelFile, level: Level) {
    let Some(marker) = marker(folder, model, level) else { return };
    let written = std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&marker, b""));
    if let Err(error) = written {
        tracing::debug!(marker = %marker.display(), %error, "the trial of a model is not recorded");
    }
}

/// The path of the record. Its name covers the identity of all parts: device, inode, length and times.
fn marker(folder: &Path, model: &ModelFile, level: Level) -> Option<PathBuf> {
    let mut hash = Sha256::new();
    hash.update(env!("CARGO_PKG_VERSION"));
    hash.update(CHECKS.to_le_bytes());
    hash.update([level as u8]);
    for part in &model.parts {
        let metadata = std::fs::metadata(&part.path).ok()?;
        hash.update(metadata.dev().to_le_bytes());
        hash.update(metadata.ino().to_le_bytes());
        hash.update(metadata.len().to_le_bytes());
        for time in [metadata.mtime(), metadata.mtime_nsec(), metadata.ctime(), metadata.ctime_nsec()] {
            hash.update(time.to_le_bytes());
        }
    }
    Some(folder.join(to_hex(hash.finalize().as_slice())))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tightwad_zoo::{Kind, Zoo};

    use super::*;

    #[test]
    fn record_holds_for_lower_levels_until_the_file_changes() {
        let models = std::env::var_os("TIGHTWAD_MODELS")
            .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models"), Into::into);
        let folder = std::env::temp_dir().join(format!("tightwad-known-{}", std::process::id()));
        let zoo = Zoo::new(&models.join("smollm2-135m-instruct.gguf"), &folder);
        let path = zoo.model(Kind::Vocabulary("smollm")).unwrap();
        let records = folder.join("records");
        let is_known = |level| is_known(&records, &ModelFile::open(&path).unwrap(), level);
        assert!(!is_known(Level::Vocabulary));
        remember(&records, &ModelFile::open(&path).unwrap(), Level::Structure);
        assert_eq!([Level::Vocabulary, Level::Structure, Level::Pass].map(is_known), [true, true, false]);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, [&bytes[..], b"more"].concat()).unwrap();
        assert!(!is_known(Level::Vocabulary), "another length");
        std::fs::remove_dir_all(folder).unwrap();
    }
}
