//! The format of a manifest: its limits, and its data.

use std::ops::RangeInclusive;

use crate::disk::digest::Digest;
use crate::disk::facts::Facts;

/// Largest piece by default, in bytes.
pub const PIECE: u64 = 64 << 20;
/// Largest block, in bytes.
pub const BLOCK: u32 = 1 << 20;

/// Version of the format.
pub(crate) const FORMAT: u32 = 1;
/// Largest file.
pub(crate) const FILE: u64 = 16 << 40;
/// What the largest piece may be.
pub(crate) const PIECES: RangeInclusive<u64> = 4 << 10..=1 << 30;

/// Longest JSON of a manifest, in bytes.
pub(crate) const JSON: u64 = 64 << 20;

/// A run of bytes of the file. A machine has all of them or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Its bytes; at least one.
    pub length: u32,
    /// Of its bytes.
    pub digest: Digest,
}

/// A run of blocks: what a peer is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Where it begins in the file.
    pub offset: u64,
    /// Its bytes.
    pub length: u64,
    /// Of its bytes.
    pub digest: Digest,
    /// What it is made of; at least one.
    pub blocks: Vec<Block>,
}

/// The content of a manifest, but for its root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Content {
    /// The file's name; the root does not cover it.
    pub(crate) name: String,
    /// Bytes of the file.
    pub(crate) size: u64,
    /// Largest piece, in bytes; the header of a GGUF may be longer.
    pub(crate) largest_piece: u64,
    /// The file's own description.
    pub(crate) facts: Facts,
    /// The pieces, in the file's order.
    pub(crate) pieces: Vec<Piece>,
}
