//! A whole product, panel by panel: sixteen rows of weights and all columns.

use std::arch::x86_64::{
    __m512, _MM_HINT_T1, _mm_prefetch, _mm512_loadu_ps, _mm512_setzero_ps, _mm512_storeu_ps,
};
use std::mem::MaybeUninit;
use std::sync::OnceLock;

use llama_cpp_sys_2 as sys;

use super::activations::{BLOCK, Block};
use super::dot::{Format, ROWS, Tile, UNIT, add};
use super::simple::{Iq4Nl, Q40, Q41, Q50, Q51, Q80};
use super::super_blocks::{Q2K, Q3K, Q4K, Q5K, Q6K};

/// Columns that one call of the kernel takes: as many sums as there are registers for, beside a tile.
const MANY: usize = 8;

/// Whether the processor has what the kernels take, and nobody wants ggml's own (to compare with them):
/// `TIGHTWAD_KERNELS=ggml`.
pub(super) fn able() -> bool {
    static ABLE: OnceLock<bool> = OnceLock::new();
    *ABLE.get_or_init(|| {
        std::env::var_os("TIGHTWAD_KERNELS").is_none_or(|wanted| wanted != "ggml")
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vnni")
    })
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

    /// Bytes of that.
    pub(super) fn bytes(self) -> usize {
        with_format!(self, F => F::BYTES)
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
    /// The panel that is probably next: its bytes are asked for meanwhile.
    pub next: *const u8,
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
        let mut tiles = [const { MaybeUninit::<Tile>::uninit() }; UNIT];
        for from in (0..panel.blocks).step_by(UNIT) {
            let count = UNIT.min(panel.blocks - from);
            let at = from / F::BLOCKS * F::BYTES;
            fetch(panel.next, ROWS * at, ROWS * count.div_ceil(F::BLOCKS) * F::BYTES);
            let weights = panel.weights.add(at);
            match all {
                // What is used at once stays in registers.
                1 => {
                    let mut some = Columns::<1>::of(panel, from, 0);
                    F::unpack(weights, panel.stride, count, |index, tile| some.add::<F>(index, &tile));
                    some.store();
                }
                2 => {
                    let mut some = Columns::<2>::of(panel, from, 0);
                    F::unpack(weights, panel.stride, count, |index, tile| some.add::<F>(index, &tile));
                    some.store();
                }
                _ => {
                    F::unpack(weights, panel.stride, count, |index, tile| {
                        tiles[index].write(tile);
                    });
                    let tiles = tiles[..count].assume_init_ref();
                    let mut column = 0;
                    while column < all {
                        column += match all - column {
                            MANY.. => Columns::<MANY>::of(panel, from, column).add_all::<F>(tiles),
                            4.. => Columns::<4>::of(panel, from, column).add_all::<F>(tiles),
                            2.. => Columns::<2>::of(panel, from, column).add_all::<F>(tiles),
                            _ => Columns::<1>::of(panel, from, column).add_all::<F>(tiles),
                        };
                    }
                }
            }
        }
    }
}

/// `N` columns of a panel, from a block on.
struct Columns<const N: usize> {
    sums: [__m512; N],
    blocks: [*const Block; N],
    out: [*mut f32; N],
}

impl<const N: usize> Columns<N> {
    /// Columns from `column` on, with what came of the blocks before `block`.
    #[inline(always)]
    unsafe fn of(panel: &Panel<'_>, block: usize, column: usize) -> Self {
        // SAFETY: the caller says that the panel has these columns, and that the processor has AVX-512.
        unsafe {
            let out = std::array::from_fn(|index| panel.out.add((column + index) * panel.apart));
            let sums = out.map(|out| if block == 0 { _mm512_setzero_ps() } else { _mm512_loadu_ps(out) });
            let blocks = panel.activations.as_ptr().add(column * panel.blocks + block);
            let blocks = std::array::from_fn(|index| blocks.add(index * panel.blocks));
            Self { sums, blocks, out }
        }
    }

    /// Adds a tile, which is `index` blocks further on.
    #[inline(always)]
    unsafe fn add<F: Format>(&mut self, index: usize, tile: &Tile) {
        // SAFETY: the caller says that the columns have such a block, and what the processor has.
        unsafe { add::<F, N>(&mut self.sums, tile, self.blocks.map(|blocks| &*blocks.add(index))) };
    }

    /// Adds tiles, and says how many columns there are.
    #[inline(always)]
    unsafe fn add_all<F: Format>(mut self, tiles: &[Tile]) -> usize {
        // SAFETY: as the caller says.
        unsafe {
            for (index, tile) in tiles.iter().enumerate() {
                self.add::<F>(index, tile);
            }
            self.store();
        }
        N
    }

    #[inline(always)]
    unsafe fn store(&self) {
        for (sum, out) in self.sums.iter().zip(self.out) {
            // SAFETY: each place has room for 16 values.
            unsafe { _mm512_storeu_ps(out, *sum) };
        }
    }
}

/// Asks for some of the next panel's bytes: sixteen rows at once are more than the processor follows by itself.
#[inline(always)]
unsafe fn fetch(next: *const u8, from: usize, bytes: usize) {
    for line in (from..from + bytes).step_by(64) {
        // SAFETY: a hint; where nothing is mapped it does nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(next.wrapping_add(line).cast()) };
    }
}
