//! The manifest that is kept beside a finished file, so that nobody hashes it again.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

use crate::disk::at;
use crate::disk::manifest::{Manifest, ManifestError};
use crate::disk::wire::JSON;

impl Manifest {
    /// The manifest that is kept beside the file, if it can still be that file's: the size fits, and the
    /// file was not changed since.
    #[must_use]
    pub fn beside(path: &Path) -> Option<Self> {
        let kept = File::open(at::beside(path, ".manifest")).ok()?;
        let (file, age) = (fs::metadata(path).ok()?, kept.metadata().ok()?);
        if file.modified().ok()? > age.modified().ok()? {
            return None;
        }
        let mut json = Vec::new();
        kept.take(JSON + 1).read_to_end(&mut json).ok()?;
        Self::parse(&json).ok().filter(|manifest| manifest.size == file.len())
    }

    /// Keeps the manifest beside its file.
    ///
    /// # Errors
    ///
    /// When the disk does not want to.
    pub fn keep_beside(&self, path: &Path) -> Result<(), ManifestError> {
        let path = at::beside(path, ".manifest");
        let new = at::beside(&path, &format!(".{}", std::process::id()));
        write(&new, &self.to_json())
            .and_then(|()| fs::rename(&new, &path))
            .and_then(|()| at::sync_directory(&path))
            .map_err(|source| {
                // It may not be there, and its name says whose it was.
                let _ = fs::remove_file(&new);
                ManifestError::Write { path, source }
            })
    }
}

fn write(path: &Path, json: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(json)?;
    file.sync_all()
}
