//! Opens the files of a store: a complete file, or a new or existing part file with its journal.

use std::fs::{self, File, Metadata};
use std::path::Path;
use std::{io, slice};

use crate::disk::block_map::BlockMap;
use crate::disk::digest::Digest;
use crate::disk::error::StoreError;
use crate::disk::file_io;
use crate::disk::format::Block;
use crate::disk::journal::{Journal, OpenedJournal};
use crate::disk::manifest::Manifest;
use crate::disk::stamp::FileStamp;
use crate::disk::verify;

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

/// Opens a complete file that has all bytes of the manifest. Hashes the file unless its sidecar shows that it
/// is unchanged since it was hashed.
pub(crate) fn verified(
    path: &Path,
    manifest: &Manifest,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<OpenedStore, StoreError> {
    if Manifest::read_sidecar(path).is_some_and(|sidecar| sidecar.root() == manifest.root()) {
        return complete(path, manifest);
    }
    let stamp = FileStamp::of(path).map_err(StoreError::for_path(path))?;
    let opened = complete(path, manifest)?;
    if !verify::is_complete(&opened.file, manifest, progress).map_err(StoreError::for_path(path))? {
        return Err(StoreError::Changed(path.to_owned()));
    }
    write_sidecar(path, manifest, stamp);
    Ok(opened)
}

/// Writes the sidecar of a verified file. The file is as good without one.
fn write_sidecar(path: &Path, manifest: &Manifest, stamp: FileStamp) {
    if let Err(error) = manifest.write_sidecar(path, stamp) {
        tracing::warn!(%error, "the next start hashes the file again");
    }
}

/// Checks that a pull to `path` would replace nothing.
///
/// # Errors
///
/// [`StoreError::Exists`], [`StoreError::DanglingLink`].
pub fn check_absent(path: &Path) -> Result<(), StoreError> {
    match path.symlink_metadata() {
        Ok(_) if path.exists() => Err(StoreError::Exists(path.to_owned())),
        Ok(_) => Err(StoreError::DanglingLink(path.to_owned())),
        // Another error ends the creation of the part file, which reports it.
        Err(_) => Ok(()),
    }
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

/// Creates the part file and its journal, or opens them. Hashes the blocks of the journal again: the part file
/// may have changed since.
pub(crate) fn resume(
    path: &Path,
    manifest: &Manifest,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<OpenedStore, StoreError> {
    let mut blocks = BlockMap::new(manifest, false);
    let (part, journal) = (file_io::with_suffix(path, ".part"), file_io::with_suffix(path, ".journal"));
    // A pull creates the journal first, so another program made a part file without a journal.
    if part.symlink_metadata().is_ok() && !journal.exists() {
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
    // The last pull may have renamed the part file without removing its journal. An older file may have the
    // same size.
    if !is_new
        && size.is_none()
        && let Ok(opened) = verified(path, manifest, progress)
    {
        journal.remove().map_err(StoreError::for_path(path))?;
        return Ok(opened);
    }
    let file = if size == Some(manifest.size()) {
        let file = open_part(&part)?;
        insert_intact(&file, manifest, &mut blocks, recorded, progress)
            .and_then(|dropped| if dropped { journal.rewrite(&blocks.indexes()) } else { Ok(()) })
            .map_err(StoreError::for_path(&part))?;
        file
    } else {
        let created = journal.reset().and_then(|()| create_sparse(&part, manifest.size()));
        created.map_err(StoreError::for_path(&part))?
    };
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

/// Adds the recorded blocks that the part file still has. True when one of them is damaged.
fn insert_intact(
    file: &File,
    manifest: &Manifest,
    blocks: &mut BlockMap,
    recorded: Vec<u32>,
    progress: &(dyn Fn(u64) + Sync),
) -> io::Result<bool> {
    let located: Result<Vec<_>, StoreError> =
        recorded.into_iter().map(|index| blocks.locate_index(manifest, index)).collect();
    let located = located.map_err(io::Error::other)?;
    let intact = verify::are_intact(file, &located, progress)?;
    for (location, _) in located.iter().zip(&intact).filter(|(_, intact)| **intact) {
        blocks.insert(location);
    }
    Ok(intact.contains(&false))
}

/// Opens an existing part file.
fn open_part(part: &Path) -> Result<File, StoreError> {
    let file = file_io::open_options().open(part).map_err(StoreError::for_path(part))?;
    let is_file = file.metadata().map_err(StoreError::for_path(part))?.is_file();
    if is_file { Ok(file) } else { Err(StoreError::Foreign(part.to_owned())) }
}

/// Bytes of a file or of a link. `None` when it does not exist.
fn file_size(path: &Path) -> io::Result<Option<u64>> {
    match fs::symlink_metadata(path) {
        Ok(file) => Ok(Some(file.len())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Creates a sparse file of `size` bytes.
fn create_sparse(part: &Path, size: u64) -> io::Result<File> {
    match fs::remove_file(part) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = file_io::open_options().create_new(true).open(part)?;
    file.set_len(size)?;
    file.sync_all()?;
    file_io::sync_parent(part)?;
    Ok(file)
}
