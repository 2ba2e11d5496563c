//! Delta: copies blocks from other local files, so that the pull need not fetch them.
//!
//! Blocks are copied through memory, so that the checked bytes are exactly the written bytes. A file system
//! could share blocks only at offsets that differ by a multiple of its block size. The lengths of two headers
//! differ by less.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use crate::disk::block_map::{BlockLocation, BlockMap};
use crate::disk::digest::Digest;
use crate::disk::error::StoreError;
use crate::disk::file_io;
use crate::disk::gguf::Gguf;
use crate::disk::hash::parallel_map;
use crate::disk::layout::piece_layouts;
use crate::disk::manifest::Manifest;

/// A block of the other file that may equal a missing block.
struct CandidateBlock {
    offset: u64,
    length: u32,
}

/// Locations of the missing blocks, by length and digest.
pub(crate) type MissingBlocks = HashMap<(u32, Digest), Vec<BlockLocation>>;

/// Copies the missing blocks that `other` has, with `write`. Returns the number of copied bytes.
pub(crate) fn copy(
    other: &Path,
    largest_piece: u64,
    missing: &MissingBlocks,
    write: impl Fn(&BlockLocation, &[u8]) -> Result<(), StoreError> + Sync,
) -> Result<u64, StoreError> {
    let file = File::open(other).map_err(StoreError::for_path(other))?;
    let size = file.metadata().map_err(StoreError::for_path(other))?.len();
    let candidates = match Manifest::read_sidecar(other) {
        Some(manifest) => candidates_by_digest(&manifest, missing),
        None => candidates_by_length(&file, size, largest_piece, missing),
    };
    let copied = parallel_map(&candidates, |buffer, block| {
        buffer.resize(block.length as usize, 0);
        file_io::read_at(&file, buffer, block.offset).map_err(StoreError::for_path(other))?;
        let locations = missing.get(&(block.length, Digest::of(buffer)));
        locations.into_iter().flatten().try_fold(0, |bytes, location| {
            write(location, buffer)?;
            Ok::<u64, StoreError>(bytes + u64::from(location.length))
        })
    })?;
    Ok(copied.iter().sum())
}

/// The locations of all missing blocks.
pub(crate) fn missing_blocks(manifest: &Manifest, have: &BlockMap) -> MissingBlocks {
    let mut missing = MissingBlocks::new();
    for (index, _) in (0..).zip(manifest.pieces()) {
        for block in have.missing_blocks(index) {
            if let Ok(location) = have.locate(manifest, index, block) {
                missing.entry((location.length, location.digest)).or_default().push(location);
            }
        }
    }
    missing
}

/// The blocks of a file with a sidecar whose digests are missing here.
fn candidates_by_digest(manifest: &Manifest, missing: &MissingBlocks) -> Vec<CandidateBlock> {
    let mut candidates = Vec::new();
    for piece in manifest.pieces() {
        let mut offset = piece.offset;
        for block in &piece.blocks {
            if missing.contains_key(&(block.length, block.digest)) {
                candidates.push(CandidateBlock { offset, length: block.length });
            }
            offset += u64::from(block.length);
        }
    }
    candidates
}

/// The blocks of a file without a sidecar that have the length of a missing block. A broken GGUF is laid out
/// like a file that is not a GGUF.
fn candidates_by_length(
    file: &File,
    size: u64,
    largest_piece: u64,
    missing: &MissingBlocks,
) -> Vec<CandidateBlock> {
    let lengths: HashSet<u32> = missing.keys().map(|(length, _)| *length).collect();
    let gguf = Gguf::read(BufReader::with_capacity(1 << 16, file), size).ok().flatten();
    let mut candidates = Vec::new();
    for piece in piece_layouts(size, gguf.as_ref(), largest_piece) {
        let mut offset = piece.offset;
        for length in piece.blocks {
            if lengths.contains(&length) {
                candidates.push(CandidateBlock { offset, length });
            }
            offset += u64::from(length);
        }
    }
    candidates
}
