//! Which blocks of a file are had.
//!
//! A piece's count of missing blocks is always the number of its blocks that are not had; a piece is had
//! when that is none.

use crate::disk::error::StoreError;
use crate::disk::manifest::Manifest;

/// Which blocks are had; blocks are numbered through the whole file.
pub(crate) struct Have {
    blocks: Vec<bool>,
    /// The number of each piece's first block; one more at the end.
    first: Vec<u32>,
    missing: Vec<u32>,
    bytes: u64,
}

/// Where a block is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spot {
    pub(crate) piece: u32,
    /// Through the whole file.
    pub(crate) number: u32,
    pub(crate) offset: u64,
    pub(crate) length: u32,
}

impl Have {
    /// Nothing, or everything.
    pub(crate) fn new(manifest: &Manifest, everything: bool) -> Self {
        let (mut first, mut missing, mut next) = (vec![0], Vec::new(), 0);
        for piece in manifest.pieces() {
            // A manifest's JSON is bounded, and so are its blocks.
            let count = u32::try_from(piece.blocks.len()).unwrap_or(u32::MAX);
            missing.push(if everything { 0 } else { count });
            next += count;
            first.push(next);
        }
        let bytes = if everything { manifest.size() } else { 0 };
        Self { blocks: vec![everything; next as usize], first, missing, bytes }
    }

    /// Where a piece's block is.
    pub(crate) fn spot(&self, manifest: &Manifest, piece: u32, block: u32) -> Result<Spot, StoreError> {
        let no_block = StoreError::NoBlock { piece, block };
        let Some(whole) = manifest.pieces().get(piece as usize) else { return Err(no_block) };
        let Some(this) = whole.blocks.get(block as usize) else { return Err(no_block) };
        let before = whole.blocks.iter().take(block as usize).map(|block| u64::from(block.length));
        Ok(Spot {
            piece,
            number: self.first[piece as usize] + block,
            offset: whole.offset + before.sum::<u64>(),
            length: this.length,
        })
    }

    /// How many blocks there are.
    pub(crate) fn count(&self) -> u32 {
        self.blocks.len().try_into().unwrap_or(u32::MAX)
    }

    /// Whether the block is had.
    pub(crate) fn block(&self, spot: &Spot) -> bool {
        self.blocks[spot.number as usize]
    }

    /// Whether the piece is had.
    pub(crate) fn piece(&self, piece: u32) -> bool {
        self.missing.get(piece as usize) == Some(&0)
    }

    /// The block is had from now on; says whether that made its piece had.
    pub(crate) fn insert(&mut self, spot: &Spot) -> bool {
        let had = &mut self.blocks[spot.number as usize];
        if *had {
            return false;
        }
        *had = true;
        self.bytes += u64::from(spot.length);
        let missing = &mut self.missing[spot.piece as usize];
        *missing -= 1;
        *missing == 0
    }

    /// Where a block is, counted through the whole file.
    pub(crate) fn nth(&self, manifest: &Manifest, number: u32) -> Result<Spot, StoreError> {
        let piece = self.first.partition_point(|first| *first <= number) - 1;
        let block = number - self.first[piece];
        self.spot(manifest, u32::try_from(piece).unwrap_or(u32::MAX), block)
    }

    /// The piece's blocks that are missing, counted within it.
    pub(crate) fn missing(&self, piece: u32) -> Vec<u32> {
        let piece = piece as usize;
        let (Some(&from), Some(&to)) = (self.first.get(piece), self.first.get(piece + 1)) else {
            return Vec::new();
        };
        (from..to).filter(|number| !self.blocks[*number as usize]).map(|number| number - from).collect()
    }

    /// The pieces that are had.
    pub(crate) fn pieces(&self) -> Vec<u32> {
        (0..).zip(&self.missing).filter_map(|(piece, missing)| (*missing == 0).then_some(piece)).collect()
    }

    /// How many pieces are not had.
    pub(crate) fn lacking(&self) -> usize {
        self.missing.iter().filter(|missing| **missing > 0).count()
    }

    /// Bytes of the blocks that are had.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }
}
