//! A worker's cache of tensors on the disk, with their SHA-256 as names.
//!
//! Invariants: a file has its final name only when it is complete. The files, complete or not, never exceed the limit.
//! Each read compares the data with the name. All functions here block.

use std::collections::{HashMap, HashSet};
use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;
use std::{fs, io};

use sha2::{Digest, Sha256};
use tightwad_core::{parse_digest, sync, to_hex};

use crate::protocol::{MAX_LISTED_TENSORS, MAX_PART_BYTES};

/// The extension of incomplete files. A writer holds a lock on its file.
const PART_EXTENSION: &str = "part";

/// A SHA-256.
pub(crate) type TensorDigest = [u8; 32];

/// A folder of tensors.
#[derive(Debug)]
pub struct TensorCache {
    folder: PathBuf,
    max_bytes: u64,
    index: Mutex<Index>,
    /// A test that holds this lock is a disk that does not answer.
    #[cfg(test)]
    pub(crate) disk: tokio::sync::Mutex<()>,
}

/// The known files. Other workers may share the folder.
#[derive(Debug, Default)]
struct Index {
    tensors: HashMap<TensorDigest, IndexEntry>,
    /// The sizes of all `tensors`.
    stored_bytes: u64,
    /// The sizes of the tensors that are being written.
    writing_bytes: u64,
}

#[derive(Debug, Clone, Copy)]
struct IndexEntry {
    bytes: u64,
    last_used: SystemTime,
    /// The number of listings that contain the tensor.
    pins: usize,
}

impl TensorCache {
    /// A cache of up to `max_bytes` bytes in `folder`. Creates the folder if it is missing. Removes incomplete files
    /// and exceeding tensors.
    ///
    /// # Errors
    ///
    /// Returns the operating system's error if the folder cannot be created.
    pub fn new(folder: PathBuf, max_bytes: u64) -> io::Result<Self> {
        fs::create_dir_all(&folder)?;
        let cache = Self {
            folder,
            max_bytes,
            index: Mutex::default(),
            #[cfg(test)]
            disk: tokio::sync::Mutex::default(),
        };
        cache.remove_incomplete_files();
        cache.scan();
        cache.make_room(0);
        Ok(cache)
    }

    /// The total size of the cached tensors in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        sync::lock(&self.index).stored_bytes
    }

    /// Lists the tensors, the latest used ones first. They stay in the cache until the listing is dropped.
    pub(crate) fn list(self: &Arc<Self>) -> Listing {
        let mut index = sync::lock(&self.index);
        let mut tensors: Vec<(SystemTime, TensorDigest)> =
            index.tensors.iter().map(|(digest, entry)| (entry.last_used, *digest)).collect();
        tensors.sort_unstable_by(|a, b| b.cmp(a));
        tensors.truncate(MAX_LISTED_TENSORS);
        let digests: Vec<TensorDigest> = tensors.into_iter().map(|(_, digest)| digest).collect();
        for digest in &digests {
            if let Some(entry) = index.tensors.get_mut(digest) {
                entry.pins += 1;
            }
        }
        Listing { cache: self.clone(), digests }
    }

    /// Opens the tensor with this SHA-256; `None` if the file is missing.
    pub(crate) fn open(&self, digest: &TensorDigest) -> Option<CachedTensor> {
        let opened = fs::File::options().read(true).append(true).open(self.path(digest));
        let Ok(file) = opened else {
            // Someone else removed the file, and perhaps more of them. The next listing must not contain them.
            self.scan();
            return None;
        };
        let bytes = file.metadata().ok()?.len();
        let now = SystemTime::now();
        // The modification time records the last use for the next start.
        let _ = file.set_modified(now);
        if let Some(entry) = sync::lock(&self.index).tensors.get_mut(digest) {
            entry.last_used = now;
        }
        Some(CachedTensor { file, bytes, digest: *digest })
    }

    /// Reads a tensor in parts and passes them to `send`, until `send` returns false. Returns true if the data matches
    /// the tensor's SHA-256. Removes the file of a tensor that was changed.
    pub(crate) fn read(&self, tensor: CachedTensor, mut send: impl FnMut(Vec<u8>) -> bool) -> bool {
        let CachedTensor { mut file, bytes, digest } = tensor;
        let (mut hash, mut left) = (Sha256::new(), bytes);
        while left > 0 {
            self.wait_for_disk();
            let mut part = Vec::new();
            let read = (&mut file).take(left.min(MAX_PART_BYTES)).read_to_end(&mut part);
            if !matches!(read, Ok(read) if read > 0) {
                break;
            }
            left -= part.len() as u64;
            hash.update(&part);
            if !send(part) {
                return false;
            }
        }
        let is_valid = left == 0 && hash.finalize().as_slice() == digest;
        if !is_valid {
            let file = self.path(&digest);
            tracing::warn!(file = %file.display(), "a cached tensor was changed on the disk; its file is removed");
            sync::lock(&self.index).remove(&digest);
            let _ = fs::remove_file(file);
        }
        is_valid
    }

    /// Starts to store a tensor of `bytes` bytes. Removes the least recently used tensors if the cache is full. `None`
    /// if the cache has no room, or if the file cannot be created.
    pub(crate) fn begin(self: &Arc<Self>, bytes: u64) -> Option<TensorWriter> {
        if !self.make_room(bytes) {
            return None;
        }
        // Two tunnels, or two workers, may receive the same tensor at the same time.
        static WRITES: AtomicU64 = AtomicU64::new(0);
        let (process, write) = (std::process::id(), WRITES.fetch_add(1, Ordering::Relaxed));
        let path = self.folder.join(format!("{process}.{write}.{PART_EXTENSION}"));
        let mut writer =
            TensorWriter { cache: self.clone(), path, file: None, hash: Sha256::new(), written: 0, bytes };
        match fs::File::create(&writer.path)
            .and_then(|file| file.try_lock().map(|()| file).map_err(Into::into))
        {
            Ok(file) => writer.file = Some(file),
            Err(error) => writer.give_up(&error),
        }
        writer.file.is_some().then_some(writer)
    }

    /// Reserves `bytes` for a tensor that is written next. Removes the least recently used tensors that no listing
    /// contains. Returns false if that does not make enough room.
    fn make_room(&self, bytes: u64) -> bool {
        let mut index = sync::lock(&self.index);
        let pinned = index.tensors.values().filter(|entry| entry.pins > 0).map(|entry| entry.bytes);
        let Some(new_bytes) = index.writing_bytes.checked_add(bytes) else { return false };
        if new_bytes.saturating_add(pinned.sum()) > self.max_bytes {
            return false;
        }
        let mut removed = Vec::new();
        while index.stored_bytes + new_bytes > self.max_bytes {
            let unpinned = index.tensors.iter().filter(|(_, entry)| entry.pins == 0);
            let oldest = unpinned.min_by_key(|(_, entry)| entry.last_used).map(|(digest, _)| *digest);
            let Some(oldest) = oldest else { break };
            index.remove(&oldest);
            removed.push(oldest);
        }
        index.writing_bytes = new_bytes;
        drop(index);
        for digest in removed {
            let _ = fs::remove_file(self.path(&digest));
        }
        true
    }

    /// Removes the incomplete files that a crash left behind. A file with a lock has a writer.
    fn remove_incomplete_files(&self) {
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|extension| extension == PART_EXTENSION)
                && fs::File::open(&path).is_ok_and(|file| file.try_lock().is_ok())
            {
                let _ = fs::remove_file(path);
            }
        }
    }

    /// Reads the folder into the index.
    fn scan(&self) {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let files: Vec<_> = entries.filter_map(|entry| indexed_file(&entry)).collect();
        let existing: HashSet<TensorDigest> = files.iter().map(|(digest, ..)| *digest).collect();
        let mut index = sync::lock(&self.index);
        index.tensors.retain(|digest, _| existing.contains(digest));
        for (digest, bytes, last_used) in files {
            let entry = index.tensors.entry(digest);
            entry.or_insert(IndexEntry { bytes, last_used, pins: 0 }).bytes = bytes;
        }
        index.stored_bytes = index.tensors.values().map(|entry| entry.bytes).sum();
    }

    fn path(&self, digest: &TensorDigest) -> PathBuf {
        self.folder.join(to_hex(digest))
    }

    /// In tests: waits while the disk does not answer.
    #[allow(clippy::unused_self)]
    fn wait_for_disk(&self) {
        #[cfg(test)]
        drop(self.disk.blocking_lock());
    }
}

impl Index {
    fn remove(&mut self, digest: &TensorDigest) {
        if let Some(entry) = self.tensors.remove(digest) {
            self.stored_bytes -= entry.bytes;
        }
    }
}

/// The digest, size and last use of a cached tensor; `None` for files whose name is not a digest.
fn indexed_file(entry: &fs::DirEntry) -> Option<(TensorDigest, u64, SystemTime)> {
    let digest = parse_digest(entry.file_name().to_str()?)?;
    let metadata = entry.metadata().ok()?;
    Some((digest, metadata.len(), metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH)))
}

/// The tensors that the cache keeps for a tunnel.
pub(crate) struct Listing {
    cache: Arc<TensorCache>,
    pub digests: Vec<TensorDigest>,
}

impl Drop for Listing {
    fn drop(&mut self) {
        let mut index = sync::lock(&self.cache.index);
        for digest in &self.digests {
            if let Some(entry) = index.tensors.get_mut(digest) {
                entry.pins = entry.pins.saturating_sub(1);
            }
        }
    }
}

/// An open file of the cache.
pub(crate) struct CachedTensor {
    file: fs::File,
    /// The size of the tensor in bytes.
    pub bytes: u64,
    digest: TensorDigest,
}

/// Stores a tensor that arrives in parts. Dropping the writer before [`TensorWriter::finish`] removes the file.
pub(crate) struct TensorWriter {
    cache: Arc<TensorCache>,
    path: PathBuf,
    /// `None` after a failure, and after the end.
    file: Option<fs::File>,
    hash: Sha256,
    written: u64,
    bytes: u64,
}

impl TensorWriter {
    /// Appends a part. A failure is only logged, because the host then sends the tensor again at the next load.
    pub(crate) fn write(&mut self, part: &[u8]) {
        let Some(file) = &mut self.file else { return };
        self.cache.wait_for_disk();
        self.hash.update(part);
        self.written += part.len() as u64;
        if let Err(error) = file.write_all(part) {
            self.give_up(&error);
        }
    }

    /// Gives the complete tensor its final name.
    pub(crate) fn finish(mut self) {
        if self.written != self.bytes {
            return;
        }
        let Some(file) = self.file.take() else { return };
        let digest: TensorDigest = self.hash.finalize_reset().into();
        let renamed = fs::rename(&self.path, self.cache.path(&digest));
        // The lock must hold until the file has its final name.
        drop(file);
        if let Err(error) = renamed {
            return self.give_up(&error);
        }
        let mut index = sync::lock(&self.cache.index);
        let pins = index.tensors.get(&digest).map_or(0, |entry| entry.pins);
        index.remove(&digest);
        index.tensors.insert(digest, IndexEntry { bytes: self.bytes, last_used: SystemTime::now(), pins });
        index.stored_bytes += self.bytes;
    }

    fn give_up(&mut self, error: &io::Error) {
        tracing::warn!(%error, folder = %self.cache.folder.display(), "cannot write a tensor to the cache");
        self.file = None;
    }
}

impl Drop for TensorWriter {
    fn drop(&mut self) {
        sync::lock(&self.cache.index).writing_bytes -= self.bytes;
        // The file of a complete tensor has another name.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests;
