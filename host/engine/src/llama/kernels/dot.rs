//! Sixteen rows of weights times columns of activations, with AVX-512 and its integer dot products.
//!
//! Lanes are rows. What a row and a column give is one chain of float operations over the row's blocks, the
//! same one however many columns are computed together: sums of integers between are exact in any order. So
//! a pass over many columns gives bit for bit what passes over one give.

use std::arch::x86_64::{
    __m512, __m512i, _mm512_cvtepi32_ps, _mm512_dpbusd_epi32, _mm512_fmadd_ps, _mm512_mul_ps,
    _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_setzero_si512,
};
use std::ops::Range;

use super::activations::Block;

/// Rows of a panel, which are the lanes of a vector.
pub(super) const ROWS: usize = 16;

/// Blocks that are unpacked at once: a K-quant's 256 weights.
pub(super) const UNIT: usize = 8;

/// 32 weights of each of 16 rows: the weight is `scale * quant + min`, less the format's offset.
#[derive(Clone, Copy)]
pub(super) struct Tile {
    /// Four weights of each row in each, as unsigned bytes.
    pub quants: [__m512i; 8],
    /// For the first and the second sixteen weights; only the first where they share it.
    pub scales: [__m512; 2],
    /// Likewise.
    pub mins: [__m512; 2],
}

impl Tile {
    /// A tile whose 32 weights share a scale and a minimum, which is not looked at where the format has none.
    ///
    /// # Safety
    ///
    /// The processor has AVX-512 F.
    #[inline(always)]
    pub(super) unsafe fn shared(quants: [__m512i; 8], scale: __m512, min: Option<__m512>) -> Self {
        // SAFETY: as the caller promises.
        let none = unsafe { _mm512_setzero_ps() };
        Self { quants, scales: [scale, none], mins: [min.unwrap_or(none), none] }
    }
}

/// A format of weights.
pub(super) trait Format {
    /// Bytes of a block, or of a super-block.
    const BYTES: usize;
    /// Blocks of 32 weights in that.
    const BLOCKS: usize;
    /// What was added to each weight to make it positive.
    const OFFSET: i32;
    /// Sixteen weights share a scale, not 32.
    const HALVES: bool;
    /// Weights have a minimum.
    const MINS: bool;

    /// Unpacks `count` blocks of 16 rows, and gives each to `tile` with its number; rows are `stride` bytes apart.
    ///
    /// # Safety
    ///
    /// That many blocks are readable in each row. The processor has AVX-512 F, BW and VNNI.
    unsafe fn unpack(block: *const u8, stride: usize, count: usize, tile: impl FnMut(usize, Tile));
}

/// Adds a tile times a block of each column to the columns' sums.
///
/// # Safety
///
/// The processor has AVX-512 F, BW and VNNI.
#[inline(always)]
pub(super) unsafe fn add<F: Format, const N: usize>(
    sums: &mut [__m512; N],
    tile: &Tile,
    blocks: [&Block; N],
) {
    // SAFETY: as the caller promises. Loops over columns are short ones, so that all are unrolled, and what they
    // go over stays in registers.
    unsafe {
        let scales = blocks.map(|block| _mm512_set1_ps(block.scale));
        if F::HALVES {
            for half in 0..2 {
                let starts = blocks.map(|block| block.starts[half]);
                let dots = dots::<F, N>(tile, blocks, starts, 4 * half..4 * half + 4);
                for column in 0..N {
                    let scale = _mm512_mul_ps(tile.scales[half], scales[column]);
                    sums[column] = _mm512_fmadd_ps(scale, _mm512_cvtepi32_ps(dots[column]), sums[column]);
                }
            }
        } else {
            let dots = dots::<F, N>(tile, blocks, blocks.map(|block| block.start), 0..8);
            for column in 0..N {
                let scale = _mm512_mul_ps(tile.scales[0], scales[column]);
                sums[column] = _mm512_fmadd_ps(scale, _mm512_cvtepi32_ps(dots[column]), sums[column]);
            }
        }
        if F::MINS && F::HALVES {
            for (sum, block) in sums.iter_mut().zip(blocks) {
                *sum = _mm512_fmadd_ps(tile.mins[0], _mm512_set1_ps(block.sums[0]), *sum);
                *sum = _mm512_fmadd_ps(tile.mins[1], _mm512_set1_ps(block.sums[1]), *sum);
            }
        } else if F::MINS {
            for (sum, block) in sums.iter_mut().zip(blocks) {
                *sum = _mm512_fmadd_ps(tile.mins[0], _mm512_set1_ps(block.sum), *sum);
            }
        }
    }
}

/// Sums of products of integers, over groups of four weights.
#[inline(always)]
unsafe fn dots<F: Format, const N: usize>(
    tile: &Tile,
    blocks: [&Block; N],
    starts: [i32; N],
    groups: Range<usize>,
) -> [__m512i; N] {
    // SAFETY: the caller's processor has what it takes; the reads are inside `quants`.
    unsafe {
        let mut dots = starts
            .map(|start| if F::OFFSET == 0 { _mm512_setzero_si512() } else { _mm512_set1_epi32(start) });
        for group in groups {
            let quants = tile.quants[group];
            for (dots, block) in dots.iter_mut().zip(blocks) {
                let four = block.quants.as_ptr().add(4 * group).cast::<i32>().read_unaligned();
                *dots = _mm512_dpbusd_epi32(*dots, quants, _mm512_set1_epi32(four));
            }
        }
        dots
    }
}
