//! Sixteen rows of weights times columns of activations.
//!
//! Lanes are rows. What a row and a column give is one chain of float operations over the row's blocks, the
//! same one however many columns are computed together: sums of integers between are exact in any order. So
//! a pass over many columns gives bit for bit what passes over one give.

use crate::llama::kernels::activations::Block;
use crate::llama::kernels::vectors::{Floats, LANES, QuantRange, Words};

/// Rows of a panel.
pub(crate) const ROWS: usize = LANES;

/// Blocks that are unpacked at once: a K-quant's 256 weights.
pub(crate) const UNIT: usize = 8;

/// 32 weights of each of 16 rows: the weight is `scale * quant + min`, less the format's offset.
#[derive(Clone, Copy)]
pub(crate) struct Tile<W: Words> {
    /// Four weights of each row in each, as unsigned bytes.
    pub quants: [W; 8],
    /// For the first and the second sixteen weights; only the first where they share it.
    pub scales: [W::Floats; 2],
    /// Likewise.
    pub mins: [W::Floats; 2],
}

impl<W: Words> Tile<W> {
    /// A tile whose 32 weights share a scale and a minimum, which is not looked at where the format has none.
    ///
    /// # Safety
    ///
    /// The processor has such vectors.
    #[inline(always)]
    pub(crate) unsafe fn shared(quants: [W; 8], scale: W::Floats, min: Option<W::Floats>) -> Self {
        // SAFETY: as the caller promises.
        let none = unsafe { W::Floats::set(0.0) };
        Self { quants, scales: [scale, none], mins: [min.unwrap_or(none), none] }
    }
}

/// A format of weights.
pub(crate) trait Format: QuantRange {
    /// Bytes of a block, or of a super-block.
    const BYTES: usize;
    /// Blocks of 32 weights in that.
    const BLOCKS: usize;
    /// Sixteen weights share a scale, not 32.
    const HALVES: bool;
    /// Weights have a minimum.
    const MINS: bool;

    /// Unpacks `count` blocks of 16 rows, and gives each to `tile` with its number; rows are `stride` bytes apart.
    ///
    /// # Safety
    ///
    /// That many blocks are readable in each row. The processor has such vectors.
    unsafe fn unpack<W: Words>(
        block: *const u8,
        stride: usize,
        count: usize,
        tile: impl FnMut(usize, Tile<W>),
    );
}

/// Adds a tile times a block of each column to the columns' sums.
///
/// # Safety
///
/// The processor has such vectors.
#[inline(always)]
pub(crate) unsafe fn add<F: Format, W: Words, const N: usize>(
    sums: &mut [W::Floats; N],
    tile: &Tile<W>,
    blocks: [&Block; N],
) {
    // SAFETY: as the caller promises. Loops over columns are short ones, so that all are unrolled, and what they
    // go over stays in registers.
    unsafe {
        if F::HALVES {
            for (half, quants) in tile.quants.as_chunks::<4>().0.iter().enumerate() {
                let columns = blocks.map(|block| block.quants.as_ptr().add(16 * half));
                let dots = W::dots::<F, 4, N>(quants, columns, blocks.map(|block| block.starts[half]));
                add_scaled::<W, N>(sums, dots, tile.scales[half], blocks);
            }
        } else {
            let columns = blocks.map(|block| block.quants.as_ptr());
            let dots = W::dots::<F, 8, N>(&tile.quants, columns, blocks.map(|block| block.start));
            add_scaled::<W, N>(sums, dots, tile.scales[0], blocks);
        }
        let float = |number: f32| W::Floats::set(number);
        if F::MINS && F::HALVES {
            for (sum, block) in sums.iter_mut().zip(blocks) {
                *sum = tile.mins[0].mul_add(float(block.sums[0]), *sum);
                *sum = tile.mins[1].mul_add(float(block.sums[1]), *sum);
            }
        } else if F::MINS {
            for (sum, block) in sums.iter_mut().zip(blocks) {
                *sum = tile.mins[0].mul_add(float(block.sum), *sum);
            }
        }
    }
}

/// Adds products of integers, times the scales of rows and columns.
#[inline(always)]
unsafe fn add_scaled<W: Words, const N: usize>(
    sums: &mut [W::Floats; N],
    dots: [W; N],
    scale: W::Floats,
    blocks: [&Block; N],
) {
    for column in 0..N {
        // SAFETY: as the caller promises.
        unsafe {
            let scale = scale.mul(W::Floats::set(blocks[column].scale));
            sums[column] = scale.mul_add(dots[column].floats(), sums[column]);
        }
    }
}
