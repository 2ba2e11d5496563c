//! The sidecar: the manifest and the stamp of a complete file, so that later runs need not hash the file
//! again.
//!
//! Invariant: the stamp is older than the hash of the bytes. A file with another stamp may have changed.
//!
//! The sidecar is `PATH.manifest`. When this file cannot be written, the sidecar is in the user's cache.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use crate::disk::digest::Digest;
use crate::disk::file_io;
use crate::disk::format::MAX_MANIFEST_BYTES;
use crate::disk::manifest_error::ManifestError;
use crate::disk::stamp::FileStamp;

/// Greatest length of the line with the stamp.
const MAX_STAMP_BYTES: u64 = 512;

/// The sidecar of a file.
pub(crate) struct Sidecar {
    /// The manifest.
    pub(crate) json: Vec<u8>,
    /// Whether the file is unchanged since it was hashed.
    pub(crate) is_current: bool,
}

/// Reads the sidecar of the file at `path`. A current one comes first. `cache` is the user's cache.
pub(crate) fn read(path: &Path, cache: Option<&Path>) -> Option<Sidecar> {
    let current = FileStamp::of(path).ok()?;
    let locations = [Some(location_beside(path)), location_in(cache, path)];
    let mut found = locations.into_iter().flatten().filter_map(|location| read_from(&location, current));
    let first = found.next()?;
    if first.is_current { Some(first) } else { Some(found.find(|other| other.is_current).unwrap_or(first)) }
}

fn read_from(location: &Path, current: FileStamp) -> Option<Sidecar> {
    // A pipe of that name would block the open.
    if !fs::metadata(location).ok()?.is_file() {
        return None;
    }
    let mut content = Vec::new();
    File::open(location).ok()?.take(MAX_MANIFEST_BYTES + MAX_STAMP_BYTES).read_to_end(&mut content).ok()?;
    // A sidecar without a stamp is a manifest alone: the file counts as changed.
    let end = content.iter().position(|byte| *byte == b'\n').unwrap_or(content.len());
    let stamp = serde_json::from_slice::<FileStamp>(content.get(end + 1..).unwrap_or_default());
    content.truncate(end);
    Some(Sidecar { json: content, is_current: stamp.is_ok_and(|stamp| stamp == current) })
}

/// Writes the sidecar of the file at `path`. `stamp` is older than the hash of the file.
pub(crate) fn write(
    path: &Path,
    json: &[u8],
    stamp: FileStamp,
    cache: Option<&Path>,
) -> Result<(), ManifestError> {
    // Serializing numbers cannot fail.
    let stamp = serde_json::to_vec(&stamp).unwrap_or_default();
    let content = [json, b"\n", &stamp, b"\n"].concat();
    let beside = location_beside(path);
    let Err(source) = replace(&beside, &content) else { return Ok(()) };
    let cached = location_in(cache, path).map(|location| {
        location.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| replace(&location, &content))
    });
    match cached {
        Some(Ok(())) => Ok(()),
        _ => Err(ManifestError::Write { path: beside, source }),
    }
}

fn location_beside(path: &Path) -> PathBuf {
    file_io::with_suffix(path, ".manifest")
}

/// The location in `cache`: the digest of the file's absolute path is its name.
fn location_in(cache: Option<&Path>, path: &Path) -> Option<PathBuf> {
    let absolute = fs::canonicalize(path).ok()?;
    let name = Digest::of(absolute.as_os_str().as_encoded_bytes());
    Some(cache?.join("manifests").join(format!("{name}.manifest")))
}

/// Writes `content` to a new file, and gives it the name `location` in one step.
fn replace(location: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = file_io::with_suffix(location, &format!(".{}", std::process::id()));
    create(&temporary, content)
        .and_then(|()| fs::rename(&temporary, location))
        .and_then(|()| file_io::sync_parent(location))
        // The temporary file may not exist. Its name holds this process's id, so removing it is safe.
        .inspect_err(|_| drop(fs::remove_file(&temporary)))
}

fn create(path: &Path, content: &[u8]) -> io::Result<()> {
    // A file of that name is the rest of a dead process, or a link that another user placed.
    let _ = fs::remove_file(path);
    let mut file = File::create_new(path)?;
    file.write_all(content)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unwritable_folder_keeps_its_sidecar_in_the_cache() {
        let (folder, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let path = folder.path().join("m.gguf");
        fs::write(&path, b"bytes").unwrap();
        // A folder of that name stands for a folder without write permission, which root would ignore.
        fs::create_dir_all(location_beside(&path).join("x")).unwrap();
        let stamp = FileStamp::of(&path).unwrap();
        let error = write(&path, b"{}", stamp, None).unwrap_err().to_string();
        assert!(error.contains("m.gguf.manifest"), "{error}");
        write(&path, b"{}", stamp, Some(cache.path())).unwrap();
        assert!(read(&path, None).is_none());
        let sidecar = read(&path, Some(cache.path())).unwrap();
        assert_eq!((sidecar.json.as_slice(), sidecar.is_current), (&b"{}"[..], true));
        fs::write(&path, b"other").unwrap();
        fs::File::options().append(true).open(&path).unwrap().write_all(b".").unwrap();
        assert!(!read(&path, Some(cache.path())).unwrap().is_current);
    }

    #[test]
    fn current_sidecar_in_the_cache_wins() {
        let (folder, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let path = folder.path().join("m.gguf");
        fs::write(&path, b"bytes").unwrap();
        // A manifest without a stamp came with the file.
        fs::write(location_beside(&path), b"{\"old\":1}").unwrap();
        assert!(!read(&path, Some(cache.path())).unwrap().is_current);
        let location = location_in(Some(cache.path()), &path).unwrap();
        fs::create_dir_all(location.parent().unwrap()).unwrap();
        let stamp = serde_json::to_string(&FileStamp::of(&path).unwrap()).unwrap();
        fs::write(location, format!("{{}}\n{stamp}\n")).unwrap();
        let sidecar = read(&path, Some(cache.path())).unwrap();
        assert_eq!((sidecar.json.as_slice(), sidecar.is_current), (&b"{}"[..], true));
    }

    #[cfg(unix)]
    #[test]
    fn sidecar_is_not_written_through_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let (path, victim) = (folder.path().join("m.gguf"), folder.path().join("victim"));
        fs::write(&path, b"bytes").unwrap();
        fs::write(&victim, b"precious").unwrap();
        let temporary = file_io::with_suffix(&location_beside(&path), &format!(".{}", std::process::id()));
        std::os::unix::fs::symlink(&victim, &temporary).unwrap();
        write(&path, b"{}", FileStamp::of(&path).unwrap(), None).unwrap();
        assert_eq!(fs::read(&victim).unwrap(), b"precious");
        assert!(read(&path, None).unwrap().is_current);
    }
}
