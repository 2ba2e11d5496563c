//! How a store begins: with a whole file, or a part file that is made or gone on with.

use std::fs::{self, File, Metadata, OpenOptions};
use std::path::Path;
use std::{io, slice};

use crate::disk::at;
use crate::disk::digest::Digest;
use crate::disk::error::StoreError;
use crate::disk::format::Block;
use crate::disk::have::Have;
use crate::disk::journal::{self, Journal};
use crate::disk::manifest::Manifest;

/// The parts of a store that its files determine.
pub(crate) struct Opened {
    pub(crate) file: File,
    pub(crate) have: Have,
    /// None: the file is whole.
    pub(crate) journal: Option<Journal>,
    /// Size and age of a whole file.
    pub(crate) settled: Option<Metadata>,
}

/// Opens a complete file.
pub(crate) fn whole(path: &Path, manifest: &Manifest) -> Result<Opened, StoreError> {
    let file = File::open(path).map_err(StoreError::of(path))?;
    let settled = file.metadata().map_err(StoreError::of(path))?;
    if settled.len() != manifest.size() {
        return Err(StoreError::Changed(path.to_owned()));
    }
    if let Some(first) = manifest.pieces().first() {
        check(path, &file, &first.blocks, 0)?;
    }
    if let Some(last) = manifest.pieces().last().and_then(|piece| piece.blocks.last()) {
        check(path, &file, slice::from_ref(last), manifest.size() - u64::from(last.length))?;
    }
    Ok(Opened { file, have: Have::new(manifest, true), journal: None, settled: Some(settled) })
}

/// Fails when the file has other blocks than these at `offset`.
fn check(path: &Path, file: &File, blocks: &[Block], mut offset: u64) -> Result<(), StoreError> {
    let mut bytes = Vec::new();
    for block in blocks {
        bytes.resize(block.length as usize, 0);
        at::read(file, &mut bytes, offset).map_err(StoreError::of(path))?;
        if Digest::of(&bytes) != block.digest {
            return Err(StoreError::Changed(path.to_owned()));
        }
        offset += u64::from(block.length);
    }
    Ok(())
}

/// Makes the part file and its journal, or opens them.
pub(crate) fn resume(path: &Path, manifest: &Manifest) -> Result<Opened, StoreError> {
    let mut have = Have::new(manifest, false);
    let (part, journal) = (at::beside(path, ".part"), at::beside(path, ".journal"));
    // The journal is made first: a part file alone is none of ours.
    if part.exists() && !journal.exists() {
        return Err(StoreError::Foreign(part));
    }
    let journal::Opened { mut journal, blocks, new } = open_journal(&journal, &part, manifest, have.count())?;
    // Nobody else of ours changes it from here on.
    let size = size_of(&part).map_err(StoreError::of(&part))?;
    if new && size.is_some() {
        journal.remove().map_err(StoreError::of(path))?;
        return Err(StoreError::Foreign(part));
    }
    if !new && size.is_none() && is_finished(path, manifest) {
        journal.remove().map_err(StoreError::of(path))?;
        manifest.keep_beside(path)?;
        return whole(path, manifest);
    }
    let file = if size == Some(manifest.size()) {
        for number in blocks {
            let spot = have.nth(manifest, number)?;
            have.insert(&spot);
        }
        OpenOptions::new().read(true).write(true).open(&part)
    } else {
        journal.reset().and_then(|()| begin(&part, manifest.size()))
    };
    let file = file.map_err(StoreError::of(&part))?;
    Ok(Opened { file, have, journal: Some(journal), settled: None })
}

/// A journal of another file is in the way only as long as there is a part file.
fn open_journal(
    path: &Path,
    part: &Path,
    manifest: &Manifest,
    count: u32,
) -> Result<journal::Opened, StoreError> {
    match Journal::open(path.to_owned(), manifest.root(), count) {
        Err(StoreError::OtherRoot { .. }) if !part.exists() => {
            fs::remove_file(path).map_err(StoreError::of(path))?;
            Journal::open(path.to_owned(), manifest.root(), count)
        }
        // By the name that people know.
        Err(StoreError::Busy(_)) => Err(StoreError::Busy(path.with_extension(""))),
        opened => opened,
    }
}

/// Whether the power went between renaming the part file and removing its journal. All of the file is hashed:
/// an older one may be as long.
fn is_finished(path: &Path, manifest: &Manifest) -> bool {
    let as_long = size_of(path).is_ok_and(|size| size == Some(manifest.size()));
    let made = || Manifest::of(path, manifest.largest_piece(), None, &|_| ());
    as_long && made().is_ok_and(|made| made.root() == manifest.root())
}

/// Bytes of a file that may be there.
fn size_of(path: &Path) -> io::Result<Option<u64>> {
    match fs::metadata(path) {
        Ok(file) => Ok(Some(file.len())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// A sparse file of that size.
fn begin(part: &Path, size: u64) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(part)?;
    file.set_len(size)?;
    file.sync_all()?;
    at::sync_directory(part)?;
    Ok(file)
}
