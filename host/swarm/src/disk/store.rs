//! A store: a model's file on this machine, complete or in part.
//!
//! Invariant: the store has a block only after a write of bytes with the block's digest, or if the journal
//! records the block. A block enters the journal only when the disk has its bytes. Until
//! [`Store::finish`] renames the file, its name is `PATH.part`, and its journal is `PATH.journal`.

use std::fmt;
use std::fs::{self, File, Metadata};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use std::time::{Duration, Instant};

use tightwad_core::sync;

use crate::disk::block_map::{BlockLocation, BlockMap};
use crate::disk::digest::Digest;
use crate::disk::error::StoreError;
use crate::disk::file_io::{self, was_modified};
use crate::disk::journal::Journal;
use crate::disk::manifest::Manifest;
use crate::disk::open::{self, OpenedStore};
use crate::disk::reuse;
use crate::disk::stamp::FileStamp;

/// A write syncs the store when at least this many bytes are not in the journal.
const MAX_UNSYNCED_BYTES: u64 = 64 << 20;
/// A write that completes a piece syncs the store when the last sync is at least this old.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// A model's file on this machine. All calls block. Many threads may call at the same time.
pub struct Store {
    path: PathBuf,
    manifest: Arc<Manifest>,
    file: File,
    state: Mutex<State>,
    /// `None`: the file is complete.
    journal: Mutex<Option<Journal>>,
    version: AtomicU64,
    /// The metadata of a complete file, which must not change any more.
    complete_metadata: Mutex<Option<Metadata>>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} of {} bytes", self.path.display(), self.have_bytes(), self.manifest.size())
    }
}

/// The state that changes with every block.
struct State {
    blocks: BlockMap,
    /// Indexes of blocks that are written, but not in the journal.
    unsynced: Vec<u32>,
    unsynced_bytes: u64,
    last_sync: Instant,
    /// A sync failed. The unsynced blocks may be lost, even if a later sync succeeds.
    failed: bool,
}

impl Store {
    fn new(path: &Path, manifest: Arc<Manifest>, opened: OpenedStore) -> Self {
        let OpenedStore { file, blocks, journal, complete_metadata } = opened;
        let (last_sync, unsynced) = (Instant::now(), Vec::new());
        Self {
            path: path.to_owned(),
            manifest,
            file,
            state: Mutex::new(State { blocks, unsynced, unsynced_bytes: 0, last_sync, failed: false }),
            journal: Mutex::new(journal),
            version: AtomicU64::new(0),
            complete_metadata: Mutex::new(complete_metadata),
        }
    }

    /// Opens a complete file for seeding. Checks its size, its first piece and its last block. The machine
    /// that fetches the file finds a change between them.
    ///
    /// # Errors
    ///
    /// [`StoreError::Changed`] when the file does not match the manifest; when the file cannot be read.
    pub fn open_complete(path: &Path, manifest: Arc<Manifest>) -> Result<Self, StoreError> {
        let opened = open::complete(path, &manifest)?;
        Ok(Self::new(path, manifest, opened))
    }

    /// Opens a complete file that has all bytes of the manifest. Hashes the file unless its sidecar shows that
    /// it is unchanged since it was hashed, and then renews the sidecar. Several threads call `progress` with
    /// the number of bytes that they have hashed since their last call.
    ///
    /// # Errors
    ///
    /// As [`Store::open_complete`].
    pub fn open_verified(
        path: &Path,
        manifest: Arc<Manifest>,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<Self, StoreError> {
        let opened = open::verified(path, &manifest, progress)?;
        Ok(Self::new(path, manifest, opened))
    }

    /// Whether an unfinished pull left its journal for the file at `path`.
    #[must_use]
    pub fn has_unfinished_pull(path: &Path) -> bool {
        file_io::with_suffix(path, ".journal").exists()
    }

    /// Creates `PATH.part` and its journal, or opens them. The store then has the blocks of the journal whose
    /// bytes are intact. Only one store can hold the journal at a time. Several threads call `progress` with
    /// the number of bytes that they have hashed since their last call.
    ///
    /// # Errors
    ///
    /// [`StoreError::Busy`] when another store holds it; [`StoreError::OtherRoot`] when it belongs to another
    /// file; [`StoreError::Foreign`] when no pull created the files; when the disk reports an error.
    pub fn resume(
        path: &Path,
        manifest: Arc<Manifest>,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<Self, StoreError> {
        let opened = open::resume(path, &manifest, progress)?;
        Ok(Self::new(path, manifest, opened))
    }

    /// Copies missing blocks that the file `other` has. Returns the number of copied bytes. Without a
    /// sidecar, the blocks of `other` that have a fitting length are hashed. The store checks every block
    /// before the write. A wrong sidecar or a change of `other` during the call therefore does no harm.
    ///
    /// # Errors
    ///
    /// When `other` cannot be read, or the disk reports an error.
    pub fn reuse(&self, other: &Path) -> Result<u64, StoreError> {
        let missing = reuse::missing_blocks(&self.manifest, &self.state().blocks);
        if missing.is_empty() {
            return Ok(0);
        }
        let write = |location: &BlockLocation, data: &[u8]| self.write_checked(location, data);
        let bytes = reuse::copy(other, self.manifest.largest_piece(), &missing, write)?;
        self.sync()?;
        Ok(bytes)
    }

    /// Finishes a pull that has every block. Renames the part file in one step, writes the sidecar and
    /// removes the journal. The store then holds a complete file. With `replace`, the file replaces an older
    /// one of that name; processes that have the older file open keep it.
    ///
    /// # Errors
    ///
    /// [`StoreError::Incomplete`], [`StoreError::Exists`], [`StoreError::Moved`]; when the disk reports an
    /// error.
    pub fn finish(&self, replace: bool) -> Result<(), StoreError> {
        let mut journal = lock(&self.journal);
        if journal.is_none() {
            return Ok(());
        }
        let missing = self.state().blocks.missing_pieces();
        if missing > 0 {
            return Err(StoreError::Incomplete { path: self.path.clone(), missing });
        }
        self.sync_with(&mut journal)?;
        self.check_part_path()?;
        let part = self.part_path();
        let renamed =
            if replace { fs::rename(&part, &self.path) } else { file_io::rename_new(&part, &self.path) };
        renamed.and_then(|()| file_io::sync_parent(&self.path)).map_err(StoreError::for_path(&self.path))?;
        let metadata = self.file.metadata().map_err(StoreError::for_path(&self.path))?;
        let stamp = FileStamp::from_metadata(&metadata);
        *lock(&self.complete_metadata) = Some(metadata);
        let removed = journal.take().map_or(Ok(()), |journal| journal.remove());
        removed.map_err(|error| StoreError::from_io(&self.journal_path(), error))?;
        Ok(self.manifest.write_sidecar(&self.path, stamp)?)
    }

    /// Checks that the file system has room for `bytes` further bytes of this file.
    ///
    /// # Errors
    ///
    /// [`StoreError::NoRoom`].
    pub fn check_free_space(&self, bytes: u64) -> Result<(), StoreError> {
        let free = file_io::free_bytes(&self.path).unwrap_or(u64::MAX);
        let no_room = || StoreError::NoRoom { path: self.path.clone(), needed: bytes, free };
        if free < bytes { Err(no_room()) } else { Ok(()) }
    }

    /// The manifest of the file.
    #[must_use]
    pub fn manifest(&self) -> &Arc<Manifest> {
        &self.manifest
    }

    /// The path of the complete file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the piece is complete.
    #[must_use]
    pub fn has_piece(&self, piece: u32) -> bool {
        self.state().blocks.has_piece(piece)
    }

    /// Whether every piece is complete.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.state().blocks.missing_pieces() == 0
    }

    /// Bytes of the piece's missing blocks.
    #[must_use]
    pub fn missing_bytes(&self, piece: u32) -> u64 {
        let Some(parent) = self.manifest.pieces().get(piece as usize) else { return 0 };
        let missing = self.missing_blocks(piece).into_iter();
        missing.map(|block| u64::from(parent.blocks[block as usize].length)).sum()
    }

    /// The complete pieces.
    #[must_use]
    pub fn have_pieces(&self) -> Vec<u32> {
        self.state().blocks.have_pieces()
    }

    /// A counter that grows whenever a piece becomes complete.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// The piece's missing blocks, counted within the piece.
    #[must_use]
    pub fn missing_blocks(&self, piece: u32) -> Vec<u32> {
        self.state().blocks.missing_blocks(piece)
    }

    /// Bytes of the blocks that the store has.
    #[must_use]
    pub fn have_bytes(&self) -> u64 {
        self.state().blocks.have_bytes()
    }

    /// Writes a block at its offset. True when its piece is complete. The store also checks a block that it
    /// has already.
    ///
    /// The store has the block immediately, but the block survives power loss only after [`Store::sync`]. This
    /// method syncs after 64 MiB, and after a complete piece if the last sync is 1 s old.
    ///
    /// # Errors
    ///
    /// [`StoreError::Corrupt`] when `data` do not match the block's digest; when the disk reports an error.
    pub fn write(&self, piece: u32, block: u32, data: &[u8]) -> Result<bool, StoreError> {
        let location = self.state().blocks.locate(&self.manifest, piece, block)?;
        if data.len() as u64 != u64::from(location.length) || Digest::of(data) != location.digest {
            return Err(StoreError::Corrupt { piece, block });
        }
        self.write_checked(&location, data)?;
        Ok(self.has_piece(piece))
    }

    /// Writes a block whose digest is checked already.
    fn write_checked(&self, location: &BlockLocation, data: &[u8]) -> Result<(), StoreError> {
        {
            let state = self.state();
            if state.blocks.has_block(location) {
                return Ok(());
            }
            if state.failed {
                return Err(StoreError::Failed(self.part_path()));
            }
        }
        file_io::write_at(&self.file, data, location.offset)
            .map_err(|error| StoreError::from_io(&self.part_path(), error))?;
        if self.record_block(location) { self.sync_unless_busy() } else { Ok(()) }
    }

    /// Records that the store has the block. True when a sync is due.
    fn record_block(&self, location: &BlockLocation) -> bool {
        let mut state = self.state();
        // Another thread may have written the same block since the check.
        if !state.blocks.has_block(location) {
            state.unsynced.push(location.index);
            state.unsynced_bytes += u64::from(location.length);
        }
        let complete = state.blocks.insert(location);
        if complete {
            self.version.fetch_add(1, Ordering::Release);
        }
        state.unsynced_bytes >= MAX_UNSYNCED_BYTES || (complete && state.last_sync.elapsed() >= SYNC_INTERVAL)
    }

    /// Reads bytes of complete pieces.
    ///
    /// # Errors
    ///
    /// [`StoreError::Missing`] when a piece is incomplete; [`StoreError::Changed`] when the complete file
    /// changed; when the disk reports an error.
    pub fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), StoreError> {
        self.check_readable(offset, buffer.len() as u64)?;
        let expected = lock(&self.complete_metadata).clone();
        if let Some(expected) = expected {
            let now = self.file.metadata().map_err(StoreError::for_path(&self.path))?;
            if was_modified(&expected, &now) {
                return Err(StoreError::Changed(self.path.clone()));
            }
        }
        file_io::read_at(&self.file, buffer, offset).map_err(StoreError::for_path(&self.path))
    }

    fn check_readable(&self, offset: u64, length: u64) -> Result<(), StoreError> {
        let end = offset.checked_add(length).filter(|end| *end <= self.manifest.size());
        let Some(end) = end else { return Err(StoreError::Missing(offset)) };
        let pieces = self.manifest.pieces();
        let from = pieces.partition_point(|piece| piece.offset + piece.length <= offset);
        let state = self.state();
        for (index, piece) in (0..).zip(pieces).skip(from).take_while(|(_, piece)| piece.offset < end) {
            if !state.blocks.has_piece(index) {
                return Err(StoreError::Missing(piece.offset.max(offset)));
            }
        }
        Ok(())
    }

    /// Makes all written blocks survive power loss: first the data, then the journal.
    ///
    /// # Errors
    ///
    /// When the disk reports an error. The store then refuses further writes: a disk that failed to write
    /// data may drop these data and report no error for a later sync. [`StoreError::Moved`] when another
    /// program renamed or removed the part file.
    pub fn sync(&self) -> Result<(), StoreError> {
        self.sync_with(&mut lock(&self.journal))
    }

    fn sync_unless_busy(&self) -> Result<(), StoreError> {
        let mut journal = match self.journal.try_lock() {
            Ok(journal) => journal,
            Err(TryLockError::Poisoned(journal)) => journal.into_inner(),
            Err(TryLockError::WouldBlock) if self.state().unsynced_bytes < 4 * MAX_UNSYNCED_BYTES => {
                return Ok(());
            }
            // Waiting for the other sync bounds the unsynced bytes.
            Err(TryLockError::WouldBlock) => lock(&self.journal),
        };
        self.sync_with(&mut journal)
    }

    fn sync_with(&self, journal: &mut Option<Journal>) -> Result<(), StoreError> {
        let Some(journal) = journal else { return Ok(()) };
        // Checked before any block counts as synced: a moved part file may be moved back.
        self.check_part_path()?;
        let blocks = {
            let mut state = self.state();
            if state.failed {
                return Err(StoreError::Failed(self.part_path()));
            }
            state.unsynced_bytes = 0;
            state.last_sync = Instant::now();
            std::mem::take(&mut state.unsynced)
        };
        if blocks.is_empty() {
            return Ok(());
        }
        let synced = self.file.sync_data().map_err(|error| StoreError::from_io(&self.part_path(), error));
        let result = synced.and_then(|()| {
            journal.append(&blocks).map_err(|error| StoreError::from_io(&self.journal_path(), error))
        });
        self.state().failed = result.is_err();
        result
    }

    /// Fails when the part file's path does not name the open file any more.
    fn check_part_path(&self) -> Result<(), StoreError> {
        let part = self.part_path();
        match file_io::is_same_file(&part, &self.file) {
            Ok(true) => Ok(()),
            Ok(false) => Err(StoreError::Moved(part)),
            Err(error) => Err(StoreError::from_io(&part, error)),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// The path of the file while it is incomplete.
    #[must_use]
    pub fn part_path(&self) -> PathBuf {
        file_io::with_suffix(&self.path, ".part")
    }

    fn journal_path(&self) -> PathBuf {
        file_io::with_suffix(&self.path, ".journal")
    }
}

/// Ignores poison: this file does not panic while it holds a lock.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    sync::lock(mutex)
}
