//! The blocks of a file that this machine has.
//!
//! Invariant: a piece's entry in `missing` is the number of its blocks that this machine lacks. The piece is
//! complete when that number is 0.

use crate::disk::digest::Digest;
use crate::disk::error::StoreError;
use crate::disk::manifest::Manifest;

/// The blocks that this machine has. A block's index counts through the whole file.
pub(crate) struct BlockMap {
    blocks: Vec<bool>,
    /// The index of each piece's first block, and at the end the number of all blocks.
    first_blocks: Vec<u32>,
    /// The number of missing blocks of each piece.
    missing: Vec<u32>,
    bytes: u64,
}

/// The position of a block in the file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BlockLocation {
    pub(crate) piece: u32,
    /// The index of the block, counted through the whole file.
    pub(crate) index: u32,
    pub(crate) offset: u64,
    pub(crate) length: u32,
    pub(crate) digest: Digest,
}

impl BlockMap {
    /// A map of a complete file, or of a file without blocks.
    pub(crate) fn new(manifest: &Manifest, complete: bool) -> Self {
        let (mut first_blocks, mut missing, mut next) = (vec![0], Vec::new(), 0);
        for piece in manifest.pieces() {
            // The size limit of a manifest's JSON bounds the number of blocks.
            let count = u32::try_from(piece.blocks.len()).unwrap_or(u32::MAX);
            missing.push(if complete { 0 } else { count });
            next += count;
            first_blocks.push(next);
        }
        let bytes = if complete { manifest.size() } else { 0 };
        Self { blocks: vec![complete; next as usize], first_blocks, missing, bytes }
    }

    /// The location of a block, which `block` counts within its piece.
    pub(crate) fn locate(
        &self,
        manifest: &Manifest,
        piece: u32,
        block: u32,
    ) -> Result<BlockLocation, StoreError> {
        let no_block = StoreError::NoBlock { piece, block };
        let Some(parent) = manifest.pieces().get(piece as usize) else { return Err(no_block) };
        let Some(entry) = parent.blocks.get(block as usize) else { return Err(no_block) };
        let before = parent.blocks.iter().take(block as usize).map(|block| u64::from(block.length));
        Ok(BlockLocation {
            piece,
            index: self.first_blocks[piece as usize] + block,
            offset: parent.offset + before.sum::<u64>(),
            length: entry.length,
            digest: entry.digest,
        })
    }

    /// The location of the block with this index in the whole file.
    pub(crate) fn locate_index(&self, manifest: &Manifest, index: u32) -> Result<BlockLocation, StoreError> {
        let piece = self.first_blocks.partition_point(|first| *first <= index) - 1;
        let block = index - self.first_blocks[piece];
        self.locate(manifest, u32::try_from(piece).unwrap_or(u32::MAX), block)
    }

    /// The number of all blocks.
    pub(crate) fn block_count(&self) -> u32 {
        self.blocks.len().try_into().unwrap_or(u32::MAX)
    }

    /// Whether this machine has the block.
    pub(crate) fn has_block(&self, location: &BlockLocation) -> bool {
        self.blocks[location.index as usize]
    }

    /// Whether the piece is complete.
    pub(crate) fn has_piece(&self, piece: u32) -> bool {
        self.missing.get(piece as usize) == Some(&0)
    }

    /// Adds a block. True when the block completed its piece.
    pub(crate) fn insert(&mut self, location: &BlockLocation) -> bool {
        let have = &mut self.blocks[location.index as usize];
        if *have {
            return false;
        }
        *have = true;
        self.bytes += u64::from(location.length);
        let missing = &mut self.missing[location.piece as usize];
        *missing -= 1;
        *missing == 0
    }

    /// The missing blocks of a piece, counted within the piece.
    pub(crate) fn missing_blocks(&self, piece: u32) -> Vec<u32> {
        let piece = piece as usize;
        let (Some(&from), Some(&to)) = (self.first_blocks.get(piece), self.first_blocks.get(piece + 1))
        else {
            return Vec::new();
        };
        (from..to).filter(|index| !self.blocks[*index as usize]).map(|index| index - from).collect()
    }

    /// The indexes of all blocks that this machine has.
    pub(crate) fn indexes(&self) -> Vec<u32> {
        (0..).zip(&self.blocks).filter_map(|(index, has)| has.then_some(index)).collect()
    }

    /// The complete pieces.
    pub(crate) fn have_pieces(&self) -> Vec<u32> {
        (0..).zip(&self.missing).filter_map(|(piece, missing)| (*missing == 0).then_some(piece)).collect()
    }

    /// The number of incomplete pieces.
    pub(crate) fn missing_pieces(&self) -> usize {
        self.missing.iter().filter(|missing| **missing > 0).count()
    }

    /// Bytes of the blocks that this machine has.
    pub(crate) fn have_bytes(&self) -> u64 {
        self.bytes
    }
}
