//! What an older file on this machine has already is copied, not fetched.
//!
//! Copied through memory: only so are the bytes that were checked the bytes that are written. A file system
//! could share blocks only where both files have them at places that differ by a multiple of its own block
//! size, and headers differ by less.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use crate::disk::at;
use crate::disk::cut::cut;
use crate::disk::digest::Digest;
use crate::disk::error::StoreError;
use crate::disk::gguf::Gguf;
use crate::disk::hash::each;
use crate::disk::have::{Have, Spot};
use crate::disk::manifest::Manifest;

/// A block of the other file that may be one of ours.
struct Candidate {
    offset: u64,
    length: u32,
}

/// Places of the missing blocks, by length and digest.
pub(crate) type Wanted = HashMap<(u32, Digest), Vec<Spot>>;

/// Copies the blocks of `other` that are wanted, by `put`; the number of bytes.
pub(crate) fn copy(
    other: &Path,
    largest_piece: u64,
    wanted: &Wanted,
    put: impl Fn(&Spot, &[u8]) -> Result<(), StoreError> + Sync,
) -> Result<u64, StoreError> {
    let file = File::open(other).map_err(StoreError::of(other))?;
    let size = file.metadata().map_err(StoreError::of(other))?.len();
    let blocks = match Manifest::beside(other) {
        Some(manifest) => known(&manifest, wanted),
        None => unknown(&file, size, largest_piece, wanted),
    };
    let copied = each(&blocks, |buffer, block| {
        buffer.resize(block.length as usize, 0);
        at::read(&file, buffer, block.offset).map_err(StoreError::of(other))?;
        let spots = wanted.get(&(block.length, Digest::of(buffer)));
        spots.into_iter().flatten().try_fold(0, |bytes, spot| {
            put(spot, buffer)?;
            Ok::<u64, StoreError>(bytes + u64::from(spot.length))
        })
    })?;
    Ok(copied.iter().sum())
}

/// Where the blocks belong that are missing.
pub(crate) fn wanted(manifest: &Manifest, have: &Have) -> Wanted {
    let mut wanted = Wanted::new();
    for (index, piece) in (0..).zip(manifest.pieces()) {
        for block in have.missing(index) {
            if let Ok(spot) = have.spot(manifest, index, block) {
                let digest = piece.blocks[block as usize].digest;
                wanted.entry((spot.length, digest)).or_default().push(spot);
            }
        }
    }
    wanted
}

/// The blocks of a file whose manifest is there.
fn known(manifest: &Manifest, wanted: &Wanted) -> Vec<Candidate> {
    let mut blocks = Vec::new();
    for piece in manifest.pieces() {
        let mut offset = piece.offset;
        for block in &piece.blocks {
            if wanted.contains_key(&(block.length, block.digest)) {
                blocks.push(Candidate { offset, length: block.length });
            }
            offset += u64::from(block.length);
        }
    }
    blocks
}

/// The blocks of another file that have a fitting length, cut as ours is. A broken GGUF is cut as what is none.
fn unknown(file: &File, size: u64, largest_piece: u64, wanted: &Wanted) -> Vec<Candidate> {
    let lengths: HashSet<u32> = wanted.keys().map(|(length, _)| *length).collect();
    let gguf = Gguf::read(BufReader::with_capacity(1 << 16, file), size).ok().flatten();
    let mut blocks = Vec::new();
    for piece in cut(size, gguf.as_ref(), largest_piece) {
        let mut offset = piece.offset;
        for length in piece.blocks {
            if lengths.contains(&length) {
                blocks.push(Candidate { offset, length });
            }
            offset += u64::from(length);
        }
    }
    blocks
}
