//! The layout of a file: the borders of its pieces and blocks.
//!
//! The header of a GGUF is a piece of its own. The borders after it depend only on the order, sizes and
//! layers of the tensors. So a longer header changes one piece, and a tensor that two files share has the
//! same blocks in both. A file that is not a GGUF is split into pieces of equal size.

use crate::disk::format::MAX_BLOCK_SIZE;
use crate::disk::gguf::Gguf;

/// The place and the block lengths of one piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PieceLayout {
    pub(crate) offset: u64,
    pub(crate) length: u64,
    /// Lengths of its blocks, in bytes.
    pub(crate) blocks: Vec<u32>,
}

/// The pieces of a file of `size` bytes. Only the first one may be larger than `largest_piece`.
pub(crate) fn piece_layouts(size: u64, gguf: Option<&Gguf>, largest_piece: u64) -> Vec<PieceLayout> {
    let mut builder = LayoutBuilder { largest_piece, pieces: Vec::new(), offset: 0, open_piece: None };
    let Some(gguf) = gguf else {
        builder.push_run(size);
        return builder.pieces;
    };
    // The header is one piece, however long: a peer that has this piece can locate every tensor.
    builder.push_piece(gguf.data_offset, split_into_blocks(gguf.data_offset).collect());
    for tensor in gguf.tensors.iter().filter(|tensor| tensor.bytes > 0) {
        builder.push_tensor(tensor.bytes, tensor.layer);
    }
    builder.close();
    builder.pieces
}

/// The lengths of the blocks of `length` bytes.
fn split_into_blocks(length: u64) -> impl Iterator<Item = u32> {
    let block = u64::from(MAX_BLOCK_SIZE);
    (0..length.div_ceil(block)).map(move |index| {
        u32::try_from(length - index * block)
            .map_or(MAX_BLOCK_SIZE, |remaining| remaining.min(MAX_BLOCK_SIZE))
    })
}

struct LayoutBuilder {
    largest_piece: u64,
    pieces: Vec<PieceLayout>,
    offset: u64,
    open_piece: Option<OpenPiece>,
}

/// A piece of complete tensors that further tensors may join.
struct OpenPiece {
    layer: Option<u32>,
    length: u64,
    blocks: Vec<u32>,
    /// Whether the last block holds small tensors and may take another one.
    shares_last_block: bool,
}

impl LayoutBuilder {
    fn push_tensor(&mut self, bytes: u64, layer: Option<u32>) {
        if bytes > self.largest_piece {
            self.close();
            return self.push_run(bytes);
        }
        let fits = |open_piece: &OpenPiece| {
            open_piece.layer == layer && open_piece.length + bytes <= self.largest_piece
        };
        if !self.open_piece.as_ref().is_some_and(fits) {
            self.close();
        }
        let new = OpenPiece { layer, length: 0, blocks: Vec::new(), shares_last_block: false };
        self.open_piece.get_or_insert(new).push_tensor(bytes);
    }

    /// Splits one large tensor into pieces without other tensors.
    fn push_run(&mut self, bytes: u64) {
        let mut remaining = bytes;
        while remaining > 0 {
            let length = remaining.min(self.largest_piece);
            self.push_piece(length, split_into_blocks(length).collect());
            remaining -= length;
        }
    }

    fn close(&mut self) {
        if let Some(open_piece) = self.open_piece.take() {
            self.push_piece(open_piece.length, open_piece.blocks);
        }
    }

    fn push_piece(&mut self, length: u64, blocks: Vec<u32>) {
        self.pieces.push(PieceLayout { offset: self.offset, length, blocks });
        self.offset += length;
    }
}

impl OpenPiece {
    fn push_tensor(&mut self, bytes: u64) {
        self.length += bytes;
        match (u32::try_from(bytes), self.blocks.last_mut()) {
            (Ok(bytes), Some(last)) if self.shares_last_block && *last + bytes <= MAX_BLOCK_SIZE => {
                *last += bytes;
            }
            _ => {
                self.blocks.extend(split_into_blocks(bytes));
                self.shares_last_block = bytes <= u64::from(MAX_BLOCK_SIZE);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::facts::Facts;
    use crate::disk::gguf::Tensor;

    const MIB: u64 = 1 << 20;

    /// Block lengths of each piece of a GGUF with a header of 100 bytes and these tensors, without the
    /// header.
    fn block_lengths(tensors: &[(&str, u64)], largest_piece: u64) -> Vec<Vec<u64>> {
        let mut offset = 100;
        let mut place = |(name, bytes): &(&str, u64)| {
            let layer = name.strip_prefix("blk.").and_then(|rest| rest.split('.').next()?.parse().ok());
            let tensor = Tensor { offset, bytes: *bytes, layer };
            offset += bytes;
            tensor
        };
        let tensors: Vec<Tensor> = tensors.iter().map(&mut place).collect();
        let gguf = Gguf { facts: Facts::default(), split: None, data_offset: 100, tensors };
        let pieces = piece_layouts(offset, Some(&gguf), largest_piece);
        let mut next = 0;
        for piece in &pieces {
            assert_eq!(piece.offset, next);
            assert_eq!(piece.length, piece.blocks.iter().map(|block| u64::from(*block)).sum::<u64>());
            assert!(piece.length <= largest_piece);
            next += piece.length;
        }
        assert_eq!(next, offset);
        assert_eq!(pieces[0].blocks, [100]);
        let blocks = |piece: &PieceLayout| piece.blocks.iter().map(|block| u64::from(*block)).collect();
        pieces[1..].iter().map(blocks).collect()
    }

    #[test]
    fn small_tensors_share_blocks_and_large_ones_do_not() {
        let tensors =
            [("a", 10), ("b", MIB - 10), ("c", 1), ("d", 2 * MIB + 5), ("e", 7), ("f", 0), ("g", 8)];
        assert_eq!(block_lengths(&tensors, 64 * MIB), [[MIB, 1, MIB, MIB, 5, 15]]);
    }

    #[test]
    fn large_tensor_has_pieces_of_its_own() {
        let tensors = [("a", 10), ("b", 5 * MIB + 5), ("c", 10)];
        assert_eq!(
            block_lengths(&tensors, 2 * MIB),
            [vec![10], vec![MIB, MIB], vec![MIB, MIB], vec![MIB, 5], vec![10]]
        );
        // The piece size need not be a multiple of the block size.
        assert_eq!(
            block_lengths(&[("a", 4 * MIB)], MIB + 1),
            [vec![MIB, 1], vec![MIB, 1], vec![MIB, 1], vec![MIB - 3]]
        );
    }

    #[test]
    fn piece_never_spans_layers() {
        let tensors = [("token_embd", 5), ("blk.0.a", 6), ("blk.0.b", 7), ("blk.1.a", 8), ("output", 9)];
        assert_eq!(block_lengths(&tensors, 64 * MIB), [[5], [13], [8], [9]]);
    }

    #[test]
    fn other_file_is_split_into_equal_pieces() {
        let pieces = piece_layouts(5 * MIB + 1, None, 2 * MIB);
        let lengths: Vec<u64> = pieces.iter().map(|piece| piece.length).collect();
        assert_eq!(lengths, [2 * MIB, 2 * MIB, MIB + 1]);
        assert_eq!(pieces[2].blocks, [MAX_BLOCK_SIZE, 1]);
        assert_eq!(piece_layouts(1, None, 4096).len(), 1);
    }
}
