//! A model's file on this machine, whole or in part.
//!
//! A block is had only when bytes with its digest were written to their place, or the journal says so. It
//! gets into the journal only when the disk has its bytes. Until [`Store::finish`] renames it, the file
//! is `PATH.part`, and its journal `PATH.journal`.

use std::fmt;
use std::fs::{self, File, Metadata};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use std::time::{Duration, Instant};

use tightwad_core::sync;

use crate::disk::at::{self, was_changed};
use crate::disk::digest::Digest;
use crate::disk::error::StoreError;
use crate::disk::have::{Have, Spot};
use crate::disk::journal::Journal;
use crate::disk::manifest::Manifest;
use crate::disk::open::{self, Opened};
use crate::disk::reuse;

/// After so many bytes the journal is written by itself ...
const UNSYNCED: u64 = 64 << 20;
/// ... and when a piece is complete and the last time was so long ago.
const PAUSE: Duration = Duration::from_secs(1);

/// A model's file on this machine. All calls block, and may come from many threads.
pub struct Store {
    path: PathBuf,
    manifest: Arc<Manifest>,
    file: File,
    state: Mutex<State>,
    /// None: the file is whole.
    journal: Mutex<Option<Journal>>,
    version: AtomicU64,
    /// A whole file's size and age; it may not change any more.
    settled: Mutex<Option<Metadata>>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} of {} bytes", self.path.display(), self.bytes_had(), self.manifest.size())
    }
}

/// What changes with every block.
struct State {
    have: Have,
    /// Had, but not in the journal.
    unsynced: Vec<u32>,
    unsynced_bytes: u64,
    synced: Instant,
    /// The disk did not take what was written: what is unsynced may be lost, whatever a later sync says.
    failed: bool,
}

impl Store {
    fn new(path: &Path, manifest: Arc<Manifest>, opened: Opened) -> Self {
        let Opened { file, have, journal, settled } = opened;
        let (synced, unsynced) = (Instant::now(), Vec::new());
        Self {
            path: path.to_owned(),
            manifest,
            file,
            state: Mutex::new(State { have, unsynced, unsynced_bytes: 0, synced, failed: false }),
            journal: Mutex::new(journal),
            version: AtomicU64::new(0),
            settled: Mutex::new(settled),
        }
    }

    /// A complete file, to be seeded. Its size is checked, its first piece and its last block. A change
    /// between them is found by the machine that fetches it.
    ///
    /// # Errors
    ///
    /// [`StoreError::Changed`] when it is not the manifest's file; when it cannot be read.
    pub fn whole(path: &Path, manifest: Arc<Manifest>) -> Result<Self, StoreError> {
        let opened = open::whole(path, &manifest)?;
        Ok(Self::new(path, manifest, opened))
    }

    /// Whether a pull of this file was begun, and not brought to its end.
    #[must_use]
    pub fn is_begun(path: &Path) -> bool {
        at::beside(path, ".journal").exists()
    }

    /// Makes `PATH.part` and its journal, or opens them: the blocks of the journal are there already.
    /// Only one store can do so at a time.
    ///
    /// # Errors
    ///
    /// [`StoreError::Busy`] when another one does; [`StoreError::OtherRoot`] when they are of another
    /// file; [`StoreError::Foreign`] when no pull made them; when the disk does not want to.
    pub fn resume(path: &Path, manifest: Arc<Manifest>) -> Result<Self, StoreError> {
        let opened = open::resume(path, &manifest)?;
        Ok(Self::new(path, manifest, opened))
    }

    /// Copies the blocks that `other` has too; how many bytes. Where no manifest is kept beside it, its
    /// blocks of a fitting length are hashed. Every block is checked before it is written, so that a
    /// wrong manifest, or a file that changes meanwhile, does no harm.
    ///
    /// # Errors
    ///
    /// When `other` cannot be read, or the disk does not want to.
    pub fn reuse(&self, other: &Path) -> Result<u64, StoreError> {
        let wanted = reuse::wanted(&self.manifest, &self.state().have);
        if wanted.is_empty() {
            return Ok(0);
        }
        let put = |spot: &Spot, data: &[u8]| self.put(spot, data);
        let bytes = reuse::copy(other, self.manifest.largest_piece(), &wanted, put)?;
        self.sync()?;
        Ok(bytes)
    }

    /// Ends a pull that has every block. The part file gets its name in one step, the manifest is kept beside
    /// it, and the journal is removed. The store is that of a whole file afterwards. `replace`: an older file
    /// of that name is replaced; processes that have it open keep it.
    ///
    /// # Errors
    ///
    /// [`StoreError::Incomplete`], [`StoreError::Exists`], [`StoreError::Moved`]; when the disk does not
    /// want to.
    pub fn finish(&self, replace: bool) -> Result<(), StoreError> {
        let mut journal = lock(&self.journal);
        if journal.is_none() {
            return Ok(());
        }
        let missing = self.state().have.lacking();
        if missing > 0 {
            return Err(StoreError::Incomplete { path: self.path.clone(), missing });
        }
        self.sync_with(&mut journal)?;
        if !replace && self.path.symlink_metadata().is_ok() {
            return Err(StoreError::Exists(self.path.clone()));
        }
        self.in_place()?;
        // An older file's, which must not be taken for this one's.
        let _ = fs::remove_file(at::beside(&self.path, ".manifest"));
        fs::rename(self.part(), &self.path)
            .and_then(|()| at::sync_directory(&self.path))
            .map_err(StoreError::of(&self.path))?;
        *lock(&self.settled) = self.file.metadata().ok();
        let removed = journal.take().map_or(Ok(()), |journal| journal.remove());
        removed.map_err(|error| StoreError::io(&self.journal_path(), error))?;
        Ok(self.manifest.keep_beside(&self.path)?)
    }

    /// What the file is made of.
    #[must_use]
    pub fn manifest(&self) -> &Arc<Manifest> {
        &self.manifest
    }

    /// The file, or what it will be.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the piece is had.
    #[must_use]
    pub fn has(&self, piece: u32) -> bool {
        self.state().have.piece(piece)
    }

    /// Whether every piece is had.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.state().have.lacking() == 0
    }

    /// Bytes of the piece's blocks that are missing.
    #[must_use]
    pub fn bytes_missing(&self, piece: u32) -> u64 {
        let Some(whole) = self.manifest.pieces().get(piece as usize) else { return 0 };
        self.missing(piece).into_iter().map(|block| u64::from(whole.blocks[block as usize].length)).sum()
    }

    /// The pieces that are had.
    #[must_use]
    pub fn had(&self) -> Vec<u32> {
        self.state().have.pieces()
    }

    /// Grows whenever a piece becomes had.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// The piece's blocks that are missing, counted within it.
    #[must_use]
    pub fn missing(&self, piece: u32) -> Vec<u32> {
        self.state().have.missing(piece)
    }

    /// Bytes of the blocks that are had.
    #[must_use]
    pub fn bytes_had(&self) -> u64 {
        self.state().have.bytes()
    }

    /// Puts a block in its place; says whether its piece is complete now. A block that is had already is
    /// checked all the same. What was written counts as had at once, but survives power loss only after
    /// [`Store::sync`], which is called from here after 64 MiB, or when a piece is complete and the last
    /// time is a second ago.
    ///
    /// # Errors
    ///
    /// [`StoreError::Corrupt`] when the data are not the block's; when the disk does not want to.
    pub fn write(&self, piece: u32, block: u32, data: &[u8]) -> Result<bool, StoreError> {
        let spot = self.state().have.spot(&self.manifest, piece, block)?;
        let expected = &self.manifest.pieces()[piece as usize].blocks[block as usize];
        if data.len() as u64 != u64::from(spot.length) || Digest::of(data) != expected.digest {
            return Err(StoreError::Corrupt { piece, block });
        }
        self.put(&spot, data)?;
        Ok(self.has(piece))
    }

    /// Puts data that were checked in their place.
    fn put(&self, spot: &Spot, data: &[u8]) -> Result<(), StoreError> {
        {
            let state = self.state();
            if state.have.block(spot) {
                return Ok(());
            }
            if state.failed {
                return Err(StoreError::Failed(self.part()));
            }
        }
        at::write(&self.file, data, spot.offset).map_err(|error| StoreError::io(&self.part(), error))?;
        if self.note(spot) { self.sync_unless_busy() } else { Ok(()) }
    }

    /// The block is had; says whether it is time to sync.
    fn note(&self, spot: &Spot) -> bool {
        let mut state = self.state();
        // Somebody else may have put the same block there meanwhile.
        if !state.have.block(spot) {
            state.unsynced.push(spot.number);
            state.unsynced_bytes += u64::from(spot.length);
        }
        let complete = state.have.insert(spot);
        if complete {
            self.version.fetch_add(1, Ordering::Release);
        }
        state.unsynced_bytes >= UNSYNCED || (complete && state.synced.elapsed() >= PAUSE)
    }

    /// Reads bytes of pieces that are had.
    ///
    /// # Errors
    ///
    /// [`StoreError::Missing`] when one of them is not; [`StoreError::Changed`] when somebody changed the
    /// finished file; when the disk does not want to.
    pub fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), StoreError> {
        self.readable(offset, into.len() as u64)?;
        let settled = lock(&self.settled).clone();
        if let Some(settled) = settled {
            let now = self.file.metadata().map_err(StoreError::of(&self.path))?;
            if was_changed(&settled, &now) {
                return Err(StoreError::Changed(self.path.clone()));
            }
        }
        at::read(&self.file, into, offset).map_err(StoreError::of(&self.path))
    }

    fn readable(&self, offset: u64, length: u64) -> Result<(), StoreError> {
        let end = offset.checked_add(length).filter(|end| *end <= self.manifest.size());
        let Some(end) = end else { return Err(StoreError::Missing(offset)) };
        let pieces = self.manifest.pieces();
        let from = pieces.partition_point(|piece| piece.offset + piece.length <= offset);
        let state = self.state();
        for (index, piece) in (0..).zip(pieces).skip(from).take_while(|(_, piece)| piece.offset < end) {
            if !state.have.piece(index) {
                return Err(StoreError::Missing(piece.offset.max(offset)));
            }
        }
        Ok(())
    }

    /// Makes all that was written survive power loss: first the data, then the journal.
    ///
    /// # Errors
    ///
    /// When the disk does not want to: nothing more can be written to this store then, because what a disk
    /// has failed to write once, it may leave out the next time without a word. And
    /// [`StoreError::Moved`], when somebody renamed or removed the part file.
    pub fn sync(&self) -> Result<(), StoreError> {
        self.sync_with(&mut lock(&self.journal))
    }

    fn sync_unless_busy(&self) -> Result<(), StoreError> {
        let mut journal = match self.journal.try_lock() {
            Ok(journal) => journal,
            Err(TryLockError::Poisoned(journal)) => journal.into_inner(),
            Err(TryLockError::WouldBlock) if self.state().unsynced_bytes < 4 * UNSYNCED => return Ok(()),
            // The disk must not fall behind without bound.
            Err(TryLockError::WouldBlock) => lock(&self.journal),
        };
        self.sync_with(&mut journal)
    }

    fn sync_with(&self, journal: &mut Option<Journal>) -> Result<(), StoreError> {
        let Some(journal) = journal else { return Ok(()) };
        // Before anything is taken for synced: a part file that was moved may be moved back.
        self.in_place()?;
        let blocks = {
            let mut state = self.state();
            if state.failed {
                return Err(StoreError::Failed(self.part()));
            }
            state.unsynced_bytes = 0;
            state.synced = Instant::now();
            std::mem::take(&mut state.unsynced)
        };
        if blocks.is_empty() {
            return Ok(());
        }
        let synced = self.file.sync_data().map_err(|error| StoreError::io(&self.part(), error));
        let done = synced.and_then(|()| {
            journal.append(&blocks).map_err(|error| StoreError::io(&self.journal_path(), error))
        });
        self.state().failed = done.is_err();
        done
    }

    /// Whether the part file is still where it was.
    fn in_place(&self) -> Result<(), StoreError> {
        let part = self.part();
        match at::leads_to(&part, &self.file) {
            Ok(true) => Ok(()),
            Ok(false) => Err(StoreError::Moved(part)),
            Err(error) => Err(StoreError::io(&part, error)),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// What the file is called while it is not whole.
    #[must_use]
    pub fn part(&self) -> PathBuf {
        at::beside(&self.path, ".part")
    }

    fn journal_path(&self) -> PathBuf {
        at::beside(&self.path, ".journal")
    }
}

/// Nothing here panics while it holds a lock.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    sync::lock(mutex)
}
