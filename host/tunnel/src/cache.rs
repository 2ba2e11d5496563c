//! Tensors that a worker keeps, named by their SHA-256.
//!
//! Invariant: a file has its final name only when it is whole; what is read is checked against its name.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};
use std::{fs, io};

use sha2::{Digest, Sha256};
use tightwad_core::{digest, hexadecimal};

/// The ending of files that are being written.
const PART: &str = "part";
/// Age of a file with that ending after which a crash must have left it: no write takes longer.
const STALE_PART_AGE: Duration = Duration::from_secs(3600);

/// A folder of tensors.
#[derive(Debug)]
pub struct Cache {
    folder: PathBuf,
    limit: u64,
}

impl Cache {
    /// Keeps up to `limit` bytes in `folder`, which is made where it is missing.
    ///
    /// # Errors
    ///
    /// The operating system's.
    pub fn new(folder: PathBuf, limit: u64) -> io::Result<Self> {
        fs::create_dir_all(&folder)?;
        Ok(Self { folder, limit })
    }

    /// Bytes in it.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files().iter().map(|file| file.bytes).sum()
    }

    /// The SHA-256 of everything in it.
    pub(crate) fn digests(&self) -> Vec<[u8; 32]> {
        self.files().into_iter().map(|file| file.digest).collect()
    }

    /// The tensor with this SHA-256; `None`: it is not there, or no longer what it was.
    pub(crate) fn get(&self, digest: &[u8; 32]) -> Option<Vec<u8>> {
        let path = self.path(digest);
        let data = fs::read(&path).ok()?;
        if Sha256::digest(&data).as_slice() == digest {
            // Those used last are the last to go.
            if let Ok(file) = fs::File::options().append(true).open(&path) {
                let _ = file.set_modified(SystemTime::now());
            }
            return Some(data);
        }
        tracing::warn!(file = %path.display(), "a tensor in the cache was changed on disk: removed");
        let _ = fs::remove_file(&path);
        None
    }

    /// Keeps a tensor; one that cannot be kept is sent again next time.
    pub(crate) fn put(&self, data: &[u8]) {
        let digest: [u8; 32] = Sha256::digest(data).into();
        let path = self.path(&digest);
        // Two tunnels may receive the same tensor at once.
        static WRITES: AtomicU64 = AtomicU64::new(0);
        let (process, write) = (std::process::id(), WRITES.fetch_add(1, Ordering::Relaxed));
        let partial = path.with_extension(format!("{process}.{write}.{PART}"));
        let written = fs::write(&partial, data).and_then(|()| fs::rename(&partial, &path));
        if let Err(error) = written {
            tracing::warn!(%error, folder = %self.folder.display(), "a tensor cannot be kept");
            let _ = fs::remove_file(&partial);
        }
    }

    /// Removes what was not used for the longest time, and what a crash left, down to the limit.
    pub(crate) fn tidy(&self) {
        self.remove_stale_parts();
        let mut files = self.files();
        files.sort_by_key(|file| file.used);
        let mut bytes: u64 = files.iter().map(|file| file.bytes).sum();
        for file in files {
            if bytes <= self.limit {
                break;
            }
            bytes -= file.bytes;
            let _ = fs::remove_file(self.path(&file.digest));
        }
    }

    fn remove_stale_parts(&self) {
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let written = entry.metadata().and_then(|facts| facts.modified());
            let age = written.ok().and_then(|written| written.elapsed().ok());
            if path.extension().is_some_and(|ending| ending == PART)
                && age.is_some_and(|age| age > STALE_PART_AGE)
            {
                let _ = fs::remove_file(path);
            }
        }
    }

    fn path(&self, digest: &[u8; 32]) -> PathBuf {
        self.folder.join(hexadecimal(digest))
    }

    fn files(&self) -> Vec<Kept> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        entries.filter_map(|entry| Kept::of(&entry)).collect()
    }
}

struct Kept {
    digest: [u8; 32],
    bytes: u64,
    used: SystemTime,
}

impl Kept {
    fn of(entry: &fs::DirEntry) -> Option<Self> {
        let name = entry.file_name();
        let facts = entry.metadata().ok()?;
        let used = facts.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        Some(Self { digest: digest(name.to_str()?)?, bytes: facts.len(), used })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_whole_tensors_only_and_within_the_limit() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path().join("tensors"), 8).unwrap();
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
    fn a_part_that_a_crash_left_is_removed_and_one_that_is_written_now_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path().to_owned(), 8).unwrap();
        let [stale, fresh] = ["a.1.0.part", "b.2.0.part"].map(|name| folder.path().join(name));
        fs::write(&stale, b"half").unwrap();
        fs::write(&fresh, b"half").unwrap();
        let long_ago = SystemTime::now() - 2 * STALE_PART_AGE;
        fs::File::options().append(true).open(&stale).unwrap().set_modified(long_ago).unwrap();
        cache.tidy();
        assert_eq!((stale.exists(), fresh.exists()), (false, true));
    }

    #[test]
    fn the_same_tensor_from_several_tunnels_at_once_is_kept_whole() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path().to_owned(), 1 << 20).unwrap();
        let data = vec![7; 10_000];
        let digest: [u8; 32] = Sha256::digest(&data).into();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..20 {
                        cache.put(&data);
                        assert!(cache.get(&digest).is_some_and(|kept| kept == data));
                    }
                });
            }
        });
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
