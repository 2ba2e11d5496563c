//! Where a file is cut.
//!
//! The header of a GGUF is a piece of its own. Behind it cuts depend on nothing but the tensors' order,
//! sizes and layers, so that a longer header changes one piece, and a tensor that two files share is cut
//! alike in both. A file that is no GGUF is cut every so many bytes.

use crate::disk::format::BLOCK;
use crate::disk::gguf::Gguf;

/// A piece to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cut {
    pub(crate) offset: u64,
    pub(crate) length: u64,
    /// Lengths of its blocks.
    pub(crate) blocks: Vec<u32>,
}

/// Cuts a file of `size` bytes.
pub(crate) fn cut(size: u64, gguf: Option<&Gguf>, largest: u64) -> Vec<Cut> {
    let mut cutter = Cutter { largest, cuts: Vec::new(), offset: 0, open: None };
    let Some(gguf) = gguf else {
        cutter.alone(size);
        return cutter.cuts;
    };
    // In one piece, however long: whoever has it knows where the tensors are.
    cutter.push(gguf.data, blocks(gguf.data).collect());
    for tensor in gguf.tensors.iter().filter(|tensor| tensor.bytes > 0) {
        cutter.tensor(tensor.bytes, tensor.layer());
    }
    cutter.close();
    cutter.cuts
}

/// Lengths of the blocks of a run of `length` bytes.
fn blocks(length: u64) -> impl Iterator<Item = u32> {
    let block = u64::from(BLOCK);
    (0..length.div_ceil(block))
        .map(move |index| u32::try_from(length - index * block).map_or(BLOCK, |left| left.min(BLOCK)))
}

struct Cutter {
    largest: u64,
    cuts: Vec<Cut>,
    offset: u64,
    open: Option<Open>,
}

/// A piece of whole tensors that more may be added to.
struct Open {
    layer: Option<u32>,
    length: u64,
    blocks: Vec<u32>,
    /// Whether the last block is a group of small tensors.
    group: bool,
}

impl Cutter {
    fn tensor(&mut self, bytes: u64, layer: Option<u32>) {
        if bytes > self.largest {
            self.close();
            return self.alone(bytes);
        }
        let fits = |open: &Open| open.layer == layer && open.length + bytes <= self.largest;
        if !self.open.as_ref().is_some_and(fits) {
            self.close();
        }
        let new = Open { layer, length: 0, blocks: Vec::new(), group: false };
        self.open.get_or_insert(new).add(bytes);
    }

    /// Cuts a run that shares its pieces with nothing else.
    fn alone(&mut self, bytes: u64) {
        let mut left = bytes;
        while left > 0 {
            let length = left.min(self.largest);
            self.push(length, blocks(length).collect());
            left -= length;
        }
    }

    fn close(&mut self) {
        if let Some(open) = self.open.take() {
            self.push(open.length, open.blocks);
        }
    }

    fn push(&mut self, length: u64, blocks: Vec<u32>) {
        self.cuts.push(Cut { offset: self.offset, length, blocks });
        self.offset += length;
    }
}

impl Open {
    fn add(&mut self, bytes: u64) {
        self.length += bytes;
        match (u32::try_from(bytes), self.blocks.last_mut()) {
            (Ok(bytes), Some(last)) if self.group && *last + bytes <= BLOCK => *last += bytes,
            _ => {
                self.blocks.extend(blocks(bytes));
                self.group = bytes <= u64::from(BLOCK);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::facts::Facts;
    use crate::disk::gguf::Tensor;

    const M: u64 = 1 << 20;

    /// Cuts a GGUF with a header of 100 bytes and these tensors; lengths of the pieces' blocks.
    fn lengths(tensors: &[(&str, u64)], largest: u64) -> Vec<Vec<u64>> {
        let mut offset = 100;
        let mut place = |(name, bytes): &(&str, u64)| {
            let tensor = Tensor { name: (*name).to_owned(), offset, bytes: *bytes };
            offset += bytes;
            tensor
        };
        let tensors: Vec<Tensor> = tensors.iter().map(&mut place).collect();
        let gguf = Gguf { facts: Facts::default(), data: 100, tensors };
        let cuts = cut(offset, Some(&gguf), largest);
        let mut next = 0;
        for cut in &cuts {
            assert_eq!(cut.offset, next);
            assert_eq!(cut.length, cut.blocks.iter().map(|block| u64::from(*block)).sum::<u64>());
            assert!(cut.length <= largest);
            next += cut.length;
        }
        assert_eq!(next, offset);
        assert_eq!(cuts[0].blocks, [100]);
        let blocks = |cut: &Cut| cut.blocks.iter().map(|block| u64::from(*block)).collect();
        cuts[1..].iter().map(blocks).collect()
    }

    #[test]
    fn small_tensors_share_blocks_and_large_ones_do_not() {
        let tensors = [("a", 10), ("b", M - 10), ("c", 1), ("d", 2 * M + 5), ("e", 7), ("f", 0), ("g", 8)];
        assert_eq!(lengths(&tensors, 64 * M), [[M, 1, M, M, 5, 15]]);
    }

    #[test]
    fn a_large_tensor_is_split_from_its_own_start_and_stands_alone() {
        let tensors = [("a", 10), ("b", 5 * M + 5), ("c", 10)];
        assert_eq!(lengths(&tensors, 2 * M), [vec![10], vec![M, M], vec![M, M], vec![M, 5], vec![10]]);
        // Pieces need not be a multiple of blocks.
        assert_eq!(lengths(&[("a", 4 * M)], M + 1), [vec![M, 1], vec![M, 1], vec![M, 1], vec![M - 3]]);
    }

    #[test]
    fn no_piece_spans_layers() {
        let tensors = [("token_embd", 5), ("blk.0.a", 6), ("blk.0.b", 7), ("blk.1.a", 8), ("output", 9)];
        assert_eq!(lengths(&tensors, 64 * M), [[5], [13], [8], [9]]);
    }

    #[test]
    fn other_files_are_cut_every_so_many_bytes() {
        let cuts = cut(5 * M + 1, None, 2 * M);
        let lengths: Vec<u64> = cuts.iter().map(|cut| cut.length).collect();
        assert_eq!(lengths, [2 * M, 2 * M, M + 1]);
        assert_eq!(cuts[2].blocks, [BLOCK, 1]);
        assert_eq!(cut(1, None, 4096).len(), 1);
    }
}
