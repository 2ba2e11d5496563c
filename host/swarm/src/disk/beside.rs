//! The manifest that is kept beside a finished file, so that nobody hashes it again.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

use crate::disk::at;
use crate::disk::format::JSON;
use crate::disk::manifest_error::ManifestError;

/// The JSON beside the file, and the file's bytes. `None` when the file was changed since.
pub(crate) fn read(path: &Path) -> Option<(Vec<u8>, u64)> {
    let kept = File::open(at::beside(path, ".manifest")).ok()?;
    let (file, age) = (fs::metadata(path).ok()?, kept.metadata().ok()?);
    if file.modified().ok()? > age.modified().ok()? {
        return None;
    }
    let mut json = Vec::new();
    kept.take(JSON + 1).read_to_end(&mut json).ok()?;
    Some((json, file.len()))
}

/// Keeps the JSON beside the file.
pub(crate) fn write(path: &Path, json: &[u8]) -> Result<(), ManifestError> {
    let path = at::beside(path, ".manifest");
    let new = at::beside(&path, &format!(".{}", std::process::id()));
    create(&new, json)
        .and_then(|()| fs::rename(&new, &path))
        .and_then(|()| at::sync_directory(&path))
        .map_err(|source| {
            // It may not be there, and its name says whose it was.
            let _ = fs::remove_file(&new);
            ManifestError::Write { path, source }
        })
}

fn create(path: &Path, json: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(json)?;
    file.sync_all()
}
