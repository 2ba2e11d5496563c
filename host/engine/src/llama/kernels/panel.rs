//! A whole product, panel by panel: sixteen rows of weights and all columns.

use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

use llama_cpp_sys_2 as sys;

use super::activations::{BLOCK, Block};
use super::dot::{Format, ROWS, UNIT, columns};
use super::simple::{Iq4Nl, Q40, Q41, Q50, Q51, Q80};
use super::super_blocks::{Q2K, Q3K, Q4K, Q5K, Q6K};
use super::unpack::blank;

/// Columns that one call of the kernel takes: as many sums as there are registers for, beside a tile.
const MANY: usize = 8;

/// Whether the processor has what the kernels take.
pub(super) fn able() -> bool {
    // The standard library remembers what it found.
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vnni")
}

/// Formats that the kernels take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Q40,
    Q41,
    Q50,
    Q51,
    Q80,
    Iq4Nl,
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
}

/// Does the same with a kind's format as the parameter `F`.
macro_rules! with_format {
    ($kind:expr, $F:ident => $body:expr) => {
        match $kind {
            Kind::Q40 => with_format!(@ Q40, $F => $body),
            Kind::Q41 => with_format!(@ Q41, $F => $body),
            Kind::Q50 => with_format!(@ Q50, $F => $body),
            Kind::Q51 => with_format!(@ Q51, $F => $body),
            Kind::Q80 => with_format!(@ Q80, $F => $body),
            Kind::Iq4Nl => with_format!(@ Iq4Nl, $F => $body),
            Kind::Q2K => with_format!(@ Q2K, $F => $body),
            Kind::Q3K => with_format!(@ Q3K, $F => $body),
            Kind::Q4K => with_format!(@ Q4K, $F => $body),
            Kind::Q5K => with_format!(@ Q5K, $F => $body),
            Kind::Q6K => with_format!(@ Q6K, $F => $body),
        }
    };
    (@ $format:ident, $F:ident => $body:expr) => {{
        type $F = $format;
        $body
    }};
}

impl Kind {
    /// The kind of a type of ggml's, where the processor can.
    pub(super) fn of(kind: sys::ggml_type) -> Option<Self> {
        if !able() {
            return None;
        }
        Some(match kind {
            sys::GGML_TYPE_Q4_0 => Self::Q40,
            sys::GGML_TYPE_Q4_1 => Self::Q41,
            sys::GGML_TYPE_Q5_0 => Self::Q50,
            sys::GGML_TYPE_Q5_1 => Self::Q51,
            sys::GGML_TYPE_Q8_0 => Self::Q80,
            sys::GGML_TYPE_IQ4_NL => Self::Iq4Nl,
            sys::GGML_TYPE_Q2_K => Self::Q2K,
            sys::GGML_TYPE_Q3_K => Self::Q3K,
            sys::GGML_TYPE_Q4_K => Self::Q4K,
            sys::GGML_TYPE_Q5_K => Self::Q5K,
            sys::GGML_TYPE_Q6_K => Self::Q6K,
            _ => return None,
        })
    }

    /// Weights in a block or super-block.
    pub(super) fn weights(self) -> usize {
        with_format!(self, F => F::BLOCKS * BLOCK)
    }

    /// Quantizes activations for weights of this kind.
    pub(super) fn quantize(self, values: &[f32; BLOCK]) -> Block {
        Block::new(values, with_format!(self, F => F::OFFSET))
    }

    /// Computes sixteen rows.
    ///
    /// # Safety
    ///
    /// [`Kind::of`] made this kind; `panel` holds.
    pub(super) unsafe fn multiply(self, panel: &Panel<'_>) {
        // SAFETY: the processor was asked; the caller promises the rest.
        with_format!(self, F => unsafe { multiply::<F>(panel) });
    }
}

/// Sixteen rows of weights, and all columns.
pub(super) struct Panel<'a> {
    /// The first row's first block; rows are `stride` bytes apart, all sixteen readable.
    pub weights: *const u8,
    pub stride: usize,
    /// Blocks of 32 values in a row and in a column.
    pub blocks: usize,
    /// The columns, one after the other.
    pub activations: &'a [Block],
    /// Where the first column's sixteen results go; the next one's are `apart` values further.
    pub out: *mut f32,
    pub apart: usize,
}

/// # Safety
///
/// The panel is what it says; the processor has AVX-512 F, BW and VNNI.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn multiply<F: Format>(panel: &Panel<'_>) {
    // SAFETY: the caller's promises; blocks are counted within rows and columns.
    unsafe {
        let all = panel.activations.len() / panel.blocks;
        let mut tiles = [blank(); UNIT];
        for from in (0..panel.blocks).step_by(UNIT) {
            let count = UNIT.min(panel.blocks - from);
            let tiles = &mut tiles[..count];
            let at = from / F::BLOCKS * F::BYTES;
            fetch(panel, at + ROWS * panel.stride, count.div_ceil(F::BLOCKS) * F::BYTES);
            F::unpack(panel.weights.add(at), panel.stride, tiles);
            let first = from == 0;
            let mut column = 0;
            while column < all {
                let blocks = panel.activations.as_ptr().add(column * panel.blocks + from);
                let done = match all - column {
                    MANY.. => some::<F, MANY>(panel, tiles, blocks, first, column),
                    4.. => some::<F, 4>(panel, tiles, blocks, first, column),
                    2.. => some::<F, 2>(panel, tiles, blocks, first, column),
                    _ => some::<F, 1>(panel, tiles, blocks, first, column),
                };
                column += done;
            }
        }
    }
}

/// `N` columns from `column` on.
#[inline(always)]
unsafe fn some<F: Format, const N: usize>(
    panel: &Panel<'_>,
    tiles: &[super::dot::Tile],
    blocks: *const Block,
    first: bool,
    column: usize,
) -> usize {
    let out = std::array::from_fn(|index| panel.out.wrapping_add((column + index) * panel.apart));
    // SAFETY: as the caller promises.
    unsafe { columns::<F, N>(tiles, blocks, panel.blocks, first, &out) };
    N
}

/// Asks for the next panel's bytes: sixteen streams are more than the processor follows by itself.
#[inline(always)]
unsafe fn fetch(panel: &Panel<'_>, at: usize, bytes: usize) {
    for row in 0..ROWS {
        for line in (0..bytes).step_by(64) {
            let address = panel.weights.wrapping_add(at + row * panel.stride + line);
            // SAFETY: a hint; where nothing is mapped it does nothing.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) };
        }
    }
}
