//! A worker's cache of tensors on the disk, with their SHA-256 as names.
//!
//! Invariant: a file has its final name only when it is complete. Each read compares the data with the name.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};
use std::{fs, io};

use sha2::{Digest, Sha256};
use tightwad_core::{parse_digest, to_hex};

/// The extension of incomplete files.
const PART_EXTENSION: &str = "part";
/// The age of an incomplete file that a crash left behind. No write takes longer.
const STALE_PART_AGE: Duration = Duration::from_secs(3600);

/// A folder of tensors.
#[derive(Debug)]
pub struct TensorCache {
    folder: PathBuf,
    max_bytes: u64,
}

impl TensorCache {
    /// A cache of up to `max_bytes` bytes in `folder`. Creates the folder if it is missing.
    ///
    /// # Errors
    ///
    /// Returns the operating system's error if the folder cannot be created.
    pub fn new(folder: PathBuf, max_bytes: u64) -> io::Result<Self> {
        fs::create_dir_all(&folder)?;
        Ok(Self { folder, max_bytes })
    }

    /// The total size of the cached tensors in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files().iter().map(|file| file.bytes).sum()
    }

    /// The SHA-256 of each cached tensor.
    pub(crate) fn digests(&self) -> Vec<[u8; 32]> {
        self.files().into_iter().map(|file| file.digest).collect()
    }

    /// Returns the tensor with this SHA-256; `None` if the file is missing or was changed.
    pub(crate) fn get(&self, digest: &[u8; 32]) -> Option<Vec<u8>> {
        let path = self.path(digest);
        let data = fs::read(&path).ok()?;
        if Sha256::digest(&data).as_slice() == digest {
            // The modification time records the last use for `tidy`.
            if let Ok(file) = fs::File::options().append(true).open(&path) {
                let _ = file.set_modified(SystemTime::now());
            }
            return Some(data);
        }
        tracing::warn!(file = %path.display(), "a cached tensor was changed on the disk; its file is removed");
        let _ = fs::remove_file(&path);
        None
    }

    /// Stores a tensor. A failure is only logged, because the host then sends the tensor again at the next load.
    pub(crate) fn put(&self, data: &[u8]) {
        let digest: [u8; 32] = Sha256::digest(data).into();
        let path = self.path(&digest);
        // Two tunnels may receive the same tensor at the same time.
        static WRITES: AtomicU64 = AtomicU64::new(0);
        let (process, write) = (std::process::id(), WRITES.fetch_add(1, Ordering::Relaxed));
        let partial = path.with_extension(format!("{process}.{write}.{PART_EXTENSION}"));
        let written = fs::write(&partial, data).and_then(|()| fs::rename(&partial, &path));
        if let Err(error) = written {
            tracing::warn!(%error, folder = %self.folder.display(), "cannot write a tensor to the cache");
            let _ = fs::remove_file(&partial);
        }
    }

    /// Removes the least recently used tensors until the cache is within its limit, and remainders of crashes.
    pub(crate) fn tidy(&self) {
        self.remove_stale_parts();
        let mut files = self.files();
        files.sort_by_key(|file| file.last_used);
        let mut bytes: u64 = files.iter().map(|file| file.bytes).sum();
        for file in files {
            if bytes <= self.max_bytes {
                break;
            }
            bytes -= file.bytes;
            let _ = fs::remove_file(self.path(&file.digest));
        }
    }

    fn remove_stale_parts(&self) {
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let written = entry.metadata().and_then(|metadata| metadata.modified());
            let age = written.ok().and_then(|written| written.elapsed().ok());
            if path.extension().is_some_and(|extension| extension == PART_EXTENSION)
                && age.is_some_and(|age| age > STALE_PART_AGE)
            {
                let _ = fs::remove_file(path);
            }
        }
    }

    fn path(&self, digest: &[u8; 32]) -> PathBuf {
        self.folder.join(to_hex(digest))
    }

    fn files(&self) -> Vec<CachedFile> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        entries.filter_map(|entry| CachedFile::from_entry(&entry)).collect()
    }
}

struct CachedFile {
    digest: [u8; 32],
    bytes: u64,
    last_used: SystemTime,
}

impl CachedFile {
    /// `None` for files whose name is not a digest.
    fn from_entry(entry: &fs::DirEntry) -> Option<Self> {
        let name = entry.file_name();
        let metadata = entry.metadata().ok()?;
        let last_used = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        Some(Self { digest: parse_digest(name.to_str()?)?, bytes: metadata.len(), last_used })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cache_keeps_unchanged_tensors_within_its_limit() {
        let folder = tempfile::tempdir().unwrap();
        let cache = TensorCache::new(folder.path().join("tensors"), 8).unwrap();
        cache.put(b"first");
        let first: [u8; 32] = Sha256::digest(b"first").into();
        assert_eq!(cache.get(&first).as_deref(), Some(b"first".as_slice()));
        assert_eq!(cache.digests(), [first]);
        fs::write(cache.path(&first), b"other").unwrap();
        assert_eq!(cache.get(&first), None);
        assert!(cache.digests().is_empty());
        cache.put(b"12345");
        cache.put(b"67890");
        cache.tidy();
        assert_eq!(cache.bytes(), 5);
    }

    #[test]
    fn tidy_removes_only_old_incomplete_files() {
        let folder = tempfile::tempdir().unwrap();
        let cache = TensorCache::new(folder.path().to_owned(), 8).unwrap();
        let [stale, fresh] = ["a.1.0.part", "b.2.0.part"].map(|name| folder.path().join(name));
        fs::write(&stale, b"half").unwrap();
        fs::write(&fresh, b"half").unwrap();
        let long_ago = SystemTime::now() - 2 * STALE_PART_AGE;
        fs::File::options().append(true).open(&stale).unwrap().set_modified(long_ago).unwrap();
        cache.tidy();
        assert_eq!((stale.exists(), fresh.exists()), (false, true));
    }

    #[test]
    fn concurrent_writes_of_one_tensor_leave_a_complete_file() {
        let folder = tempfile::tempdir().unwrap();
        let cache = TensorCache::new(folder.path().to_owned(), 1 << 20).unwrap();
        let data = vec![7; 10_000];
        let digest: [u8; 32] = Sha256::digest(&data).into();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..20 {
                        cache.put(&data);
                        assert!(cache.get(&digest).is_some_and(|cached| cached == data));
                    }
                });
            }
        });
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
