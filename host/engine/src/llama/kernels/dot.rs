//! Products of a tile of weights and blocks of activations.
//!
//! Lanes are rows. Each output is one fixed sequence of float operations over the row's blocks, independent
//! of the number of columns. The integer sums inside a block are exact in any order. So a pass over many
//! columns gives the same bits as one pass per column.

use crate::llama::kernels::activations::ActivationBlock;
use crate::llama::kernels::simd::{LANES, QuantRange, SimdF32, SimdI32};

/// Rows of a panel.
pub(crate) const PANEL_ROWS: usize = LANES;

/// The number of tiles that are unpacked before their use: the 256 weights of a k-quant.
pub(crate) const MAX_TILES: usize = 8;

/// 32 weights of each of 16 rows. A weight is `scale * (quant - zero point) + min`.
#[derive(Clone, Copy)]
pub(crate) struct Tile<W: SimdI32> {
    /// Each lane of each vector contains four weights of a row, as unsigned bytes.
    pub quants: [W; 8],
    /// The scales of the first and the second sixteen weights; only the first if all 32 share it.
    pub scales: [W::F32; 2],
    /// The minima, in the same way.
    pub mins: [W::F32; 2],
}

impl<W: SimdI32> Tile<W> {
    /// A tile whose 32 weights share a scale and a minimum. Formats without minima ignore `min`.
    ///
    /// # Safety
    ///
    /// The processor supports `W`.
    #[inline(always)]
    pub(crate) unsafe fn with_shared_scale(quants: [W; 8], scale: W::F32, min: Option<W::F32>) -> Self {
        // SAFETY: as the caller promises.
        let none = unsafe { W::F32::splat(0.0) };
        Self { quants, scales: [scale, none], mins: [min.unwrap_or(none), none] }
    }
}

/// A weight format of ggml.
pub(crate) trait BlockFormat: QuantRange {
    /// Bytes of a block of ggml (of a super-block for k-quants).
    const BLOCK_BYTES: usize;
    /// Number of 32-weight tiles in a block of ggml.
    const TILES_PER_BLOCK: usize;
    /// True if sixteen weights share a scale, false if 32 do.
    const SCALE_PER_16: bool;
    /// True if weights have a minimum.
    const HAS_MIN: bool;

    /// Unpacks `count` tiles of 16 rows and passes each to `emit` with its index. The rows are `stride` bytes
    /// apart.
    ///
    /// # Safety
    ///
    /// Each row has these tiles. The processor supports `W`.
    unsafe fn unpack<W: SimdI32>(
        block: *const u8,
        stride: usize,
        count: usize,
        emit: impl FnMut(usize, Tile<W>),
    );
}

/// Adds the product of a tile and a block of each column to the columns' sums.
///
/// # Safety
///
/// The processor supports `W`.
#[inline(always)]
pub(crate) unsafe fn accumulate_tile<F: BlockFormat, W: SimdI32, const N: usize>(
    sums: &mut [W::F32; N],
    tile: &Tile<W>,
    blocks: [&ActivationBlock; N],
) {
    // SAFETY: as the caller promises. The loops over columns are separate and short, so the compiler unrolls
    // them and keeps their values in registers.
    unsafe {
        if F::SCALE_PER_16 {
            for (half, quants) in tile.quants.as_chunks::<4>().0.iter().enumerate() {
                let columns = blocks.map(|block| block.quants.as_ptr().add(16 * half));
                let dots = W::dot_u8i8::<F, 4, N>(
                    quants,
                    columns,
                    blocks.map(|block| block.half_zero_point_terms[half]),
                );
                accumulate_scaled::<W, N>(sums, dots, tile.scales[half], blocks);
            }
        } else {
            let columns = blocks.map(|block| block.quants.as_ptr());
            let dots =
                W::dot_u8i8::<F, 8, N>(&tile.quants, columns, blocks.map(|block| block.zero_point_term));
            accumulate_scaled::<W, N>(sums, dots, tile.scales[0], blocks);
        }
        let float = |number: f32| W::F32::splat(number);
        if F::HAS_MIN && F::SCALE_PER_16 {
            for (sum, block) in sums.iter_mut().zip(blocks) {
                *sum = tile.mins[0].mul_add(float(block.half_scaled_sums[0]), *sum);
                *sum = tile.mins[1].mul_add(float(block.half_scaled_sums[1]), *sum);
            }
        } else if F::HAS_MIN {
            for (sum, block) in sums.iter_mut().zip(blocks) {
                *sum = tile.mins[0].mul_add(float(block.scaled_sum), *sum);
            }
        }
    }
}

/// Adds integer dot products, times the scales of rows and columns.
#[inline(always)]
unsafe fn accumulate_scaled<W: SimdI32, const N: usize>(
    sums: &mut [W::F32; N],
    dots: [W; N],
    scale: W::F32,
    blocks: [&ActivationBlock; N],
) {
    for column in 0..N {
        // SAFETY: as the caller promises.
        unsafe {
            let scale = scale.mul(W::F32::splat(blocks[column].scale));
            sums[column] = scale.mul_add(dots[column].to_f32(), sums[column]);
        }
    }
}
