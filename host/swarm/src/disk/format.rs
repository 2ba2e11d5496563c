//! The format of a manifest: its limits and its data.

use std::ops::RangeInclusive;

use crate::disk::digest::Digest;
use crate::disk::facts::Facts;

/// The default size of the largest piece, in bytes.
pub const DEFAULT_PIECE_SIZE: u64 = 64 << 20;
/// The size of the largest block, in bytes.
pub const MAX_BLOCK_SIZE: u32 = 1 << 20;

/// The version of the format.
pub(crate) const FORMAT_VERSION: u32 = 1;
/// The size of the largest file, in bytes.
pub(crate) const MAX_FILE_SIZE: u64 = 16 << 40;
/// The range of the largest piece's size, in bytes.
pub(crate) const PIECE_SIZES: RangeInclusive<u64> = 4 << 10..=1 << 30;

/// Largest number of pieces: a pull keeps some bytes per piece and peer.
pub(crate) const MAX_PIECES: usize = 1 << 18;
/// Greatest length of a manifest's JSON.
pub(crate) const MAX_MANIFEST_BYTES: u64 = 64 << 20;

/// The part of a piece that one digest covers. A machine has all bytes of a block or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Its bytes; at least one.
    pub length: u32,
    /// The digest of its bytes.
    pub digest: Digest,
}

/// A run of blocks: the unit that a peer announces and that a picker chooses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Its offset in the file, in bytes.
    pub offset: u64,
    /// Its bytes.
    pub length: u64,
    /// The digest of its bytes.
    pub digest: Digest,
    /// Its blocks; at least one.
    pub blocks: Vec<Block>,
}

/// The content of a manifest, without its root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Content {
    /// The file's name. The root does not cover it.
    pub(crate) name: String,
    /// Bytes of the file.
    pub(crate) size: u64,
    /// Bytes of the largest piece. The header of a GGUF may be longer.
    pub(crate) largest_piece: u64,
    /// Facts from the file's header.
    pub(crate) facts: Facts,
    /// The pieces, in the file's order.
    pub(crate) pieces: Vec<Piece>,
}
