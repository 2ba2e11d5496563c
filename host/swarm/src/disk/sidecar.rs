//! The sidecar: `PATH.manifest` beside a complete file, so that later runs need not hash the file again.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

use crate::disk::file_io;
use crate::disk::format::MAX_MANIFEST_BYTES;
use crate::disk::manifest_error::ManifestError;

/// Reads the sidecar's JSON and the size of its file. `None` when the file is newer than the sidecar.
pub(crate) fn read(path: &Path) -> Option<(Vec<u8>, u64)> {
    let sidecar = File::open(file_io::with_suffix(path, ".manifest")).ok()?;
    let (file, sidecar_metadata) = (fs::metadata(path).ok()?, sidecar.metadata().ok()?);
    if file.modified().ok()? > sidecar_metadata.modified().ok()? {
        return None;
    }
    let mut json = Vec::new();
    sidecar.take(MAX_MANIFEST_BYTES + 1).read_to_end(&mut json).ok()?;
    Some((json, file.len()))
}

/// Writes the sidecar of the file at `path`.
pub(crate) fn write(path: &Path, json: &[u8]) -> Result<(), ManifestError> {
    let path = file_io::with_suffix(path, ".manifest");
    let temporary = file_io::with_suffix(&path, &format!(".{}", std::process::id()));
    create(&temporary, json)
        .and_then(|()| fs::rename(&temporary, &path))
        .and_then(|()| file_io::sync_parent(&path))
        .map_err(|source| {
            // The temporary file may not exist. Its name holds this process's id, so removing it is safe.
            let _ = fs::remove_file(&temporary);
            ManifestError::Write { path, source }
        })
}

fn create(path: &Path, json: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(json)?;
    file.sync_all()
}
