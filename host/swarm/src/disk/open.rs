//! Opens the files of a store: a complete file, or a new or existing part file with its journal.

use std::fs::{self, File, Metadata, OpenOptions};
use std::path::Path;
use std::{io, slice};

use crate::disk::block_map::BlockMap;
use crate::disk::digest::Digest;
use crate::disk::error::StoreError;
use crate::disk::file_io;
use crate::disk::format::Block;
use crate::disk::journal::{Journal, OpenedJournal};
use crate::disk::manifest::Manifest;

/// The parts of a store that come from its files.
pub(crate) struct OpenedStore {
    pub(crate) file: File,
    pub(crate) blocks: BlockMap,
    /// `None`: the file is complete.
    pub(crate) journal: Option<Journal>,
    /// The metadata of a complete file.
    pub(crate) complete_metadata: Option<Metadata>,
}

/// Opens a complete file. Checks its size, its first piece and its last block.
pub(crate) fn complete(path: &Path, manifest: &Manifest) -> Result<OpenedStore, StoreError> {
    let file = File::open(path).map_err(StoreError::for_path(path))?;
    let metadata = file.metadata().map_err(StoreError::for_path(path))?;
    if metadata.len() != manifest.size() {
        return Err(StoreError::Changed(path.to_owned()));
    }
    if let Some(first) = manifest.pieces().first() {
        check_blocks(path, &file, &first.blocks, 0)?;
    }
    if let Some(last) = manifest.pieces().last().and_then(|piece| piece.blocks.last()) {
        check_blocks(path, &file, slice::from_ref(last), manifest.size() - u64::from(last.length))?;
    }
    let blocks = BlockMap::new(manifest, true);
    Ok(OpenedStore { file, blocks, journal: None, complete_metadata: Some(metadata) })
}

/// Fails when the bytes from `offset` do not match these blocks.
fn check_blocks(path: &Path, file: &File, blocks: &[Block], mut offset: u64) -> Result<(), StoreError> {
    let mut bytes = Vec::new();
    for block in blocks {
        bytes.resize(block.length as usize, 0);
        file_io::read_at(file, &mut bytes, offset).map_err(StoreError::for_path(path))?;
        if Digest::of(&bytes) != block.digest {
            return Err(StoreError::Changed(path.to_owned()));
        }
        offset += u64::from(block.length);
    }
    Ok(())
}

/// Creates the part file and its journal, or opens them.
pub(crate) fn resume(path: &Path, manifest: &Manifest) -> Result<OpenedStore, StoreError> {
    let mut blocks = BlockMap::new(manifest, false);
    let (part, journal) = (file_io::with_suffix(path, ".part"), file_io::with_suffix(path, ".journal"));
    // A pull creates the journal first, so another program made a part file without a journal.
    if part.exists() && !journal.exists() {
        return Err(StoreError::Foreign(part));
    }
    let OpenedJournal { mut journal, blocks: recorded, is_new } =
        open_journal(&journal, &part, manifest, blocks.block_count())?;
    // The journal's lock keeps other pulls away from the part file from here on.
    let size = file_size(&part).map_err(StoreError::for_path(&part))?;
    if is_new && size.is_some() {
        journal.remove().map_err(StoreError::for_path(path))?;
        return Err(StoreError::Foreign(part));
    }
    if !is_new && size.is_none() && was_renamed(path, manifest) {
        journal.remove().map_err(StoreError::for_path(path))?;
        manifest.write_sidecar(path)?;
        return complete(path, manifest);
    }
    let file = if size == Some(manifest.size()) {
        for index in recorded {
            let location = blocks.locate_index(manifest, index)?;
            blocks.insert(&location);
        }
        OpenOptions::new().read(true).write(true).open(&part)
    } else {
        journal.reset().and_then(|()| create_sparse(&part, manifest.size()))
    };
    let file = file.map_err(StoreError::for_path(&part))?;
    Ok(OpenedStore { file, blocks, journal: Some(journal), complete_metadata: None })
}

/// Opens the journal. Without a part file, the journal of another file is replaced.
fn open_journal(
    path: &Path,
    part: &Path,
    manifest: &Manifest,
    block_count: u32,
) -> Result<OpenedJournal, StoreError> {
    match Journal::open(path.to_owned(), manifest.root(), block_count) {
        Err(StoreError::OtherRoot { .. }) if !part.exists() => {
            fs::remove_file(path).map_err(StoreError::for_path(path))?;
            Journal::open(path.to_owned(), manifest.root(), block_count)
        }
        // The message shows the name of the final file.
        Err(StoreError::Busy(_)) => Err(StoreError::Busy(path.with_extension(""))),
        opened => opened,
    }
}

/// Whether the last pull renamed the part file but did not remove its journal. Hashes the complete file: an
/// older file may have the same size.
fn was_renamed(path: &Path, manifest: &Manifest) -> bool {
    let same_size = file_size(path).is_ok_and(|size| size == Some(manifest.size()));
    let built = || Manifest::build(path, manifest.largest_piece(), None, &|_| ());
    same_size && built().is_ok_and(|built| built.root() == manifest.root())
}

/// Bytes of a file. `None` when it does not exist.
fn file_size(path: &Path) -> io::Result<Option<u64>> {
    match fs::metadata(path) {
        Ok(file) => Ok(Some(file.len())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Creates a sparse file of `size` bytes.
fn create_sparse(part: &Path, size: u64) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(part)?;
    file.set_len(size)?;
    file.sync_all()?;
    file_io::sync_parent(part)?;
    Ok(file)
}
