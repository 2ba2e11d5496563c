//! A whole product, panel by panel: sixteen rows of weights and all columns.

use std::arch::x86_64::{__m256i, __m512i, _MM_HINT_T1, _mm_prefetch};
use std::mem::MaybeUninit;

use llama_cpp_sys_2 as sys;

use crate::llama::kernels::activations::{BLOCK, Block};
use crate::llama::kernels::dot::{Format, ROWS, Tile, UNIT, add};
use crate::llama::kernels::simple::{Iq4Nl, Q40, Q41, Q50, Q51, Q80};
use crate::llama::kernels::super_blocks::{Q2K, Q3K, Q4K, Q5K, Q6K};
use crate::llama::kernels::vectors::{Floats, Processor, QuantRange, Words};

/// Formats that the kernels take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
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
    /// The kind of a type of ggml's.
    pub(crate) fn of(kind: sys::ggml_type) -> Option<Self> {
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
    pub(crate) fn weights(self) -> usize {
        with_format!(self, F => F::BLOCKS * BLOCK)
    }

    /// Bytes of that.
    pub(crate) fn bytes(self) -> usize {
        with_format!(self, F => F::BYTES)
    }

    /// Quantizes activations for weights of this kind.
    pub(crate) fn quantize(self, values: &[f32; BLOCK]) -> Block {
        Block::new(values, with_format!(self, F => F::OFFSET))
    }

    /// Computes sixteen rows.
    ///
    /// # Safety
    ///
    /// The processor is this one; `panel` holds.
    pub(crate) unsafe fn multiply(self, processor: Processor, panel: &Panel<'_>) {
        // SAFETY: as the caller promises.
        with_format!(self, F => unsafe {
            match processor {
                Processor::Avx2 => multiply_avx2::<F>(panel),
                Processor::Avx512 => multiply_avx512::<F>(panel),
            }
        });
    }
}

/// Sixteen rows of weights, and all columns.
pub(crate) struct Panel<'a> {
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

impl Panel<'_> {
    /// Unpacks `count` blocks from `block` on, and meanwhile asks for as much of the next panel: sixteen rows at
    /// once are more than the processor follows by itself, and asked for all at once they would be waited for.
    #[inline(always)]
    unsafe fn unpack<F: Format, W: Words>(
        &self,
        block: usize,
        count: usize,
        mut tile: impl FnMut(usize, Tile<W>),
    ) {
        let share = ROWS * F::BYTES / F::BLOCKS;
        let next = self.next.wrapping_add(block * share);
        // SAFETY: the caller says that there are as many blocks; a hint does nothing where nothing is mapped.
        unsafe {
            let weights = self.weights.add(block / F::BLOCKS * F::BYTES);
            F::unpack(weights, self.stride, count, |index, unpacked| {
                for line in (0..share).step_by(64) {
                    _mm_prefetch::<_MM_HINT_T1>(next.wrapping_add(index * share + line).cast());
                }
                tile(index, unpacked);
            });
        }
    }
}

/// # Safety
///
/// The panel is what it says; the processor has AVX2, FMA and F16C.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn multiply_avx2<F: Format>(panel: &Panel<'_>) {
    // SAFETY: the caller's promises.
    unsafe { multiply::<F, [__m256i; 2]>(panel) };
}

/// # Safety
///
/// The panel is what it says; the processor has AVX-512 F, BW and VNNI.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn multiply_avx512<F: Format>(panel: &Panel<'_>) {
    // SAFETY: the caller's promises.
    unsafe { multiply::<F, __m512i>(panel) };
}

/// # Safety
///
/// The panel is what it says; the processor has such vectors.
#[inline(always)]
unsafe fn multiply<F: Format, W: Words>(panel: &Panel<'_>) {
    // SAFETY: the caller's promises; blocks are counted within rows and columns.
    unsafe {
        let all = panel.activations.len() / panel.blocks;
        let mut tiles = [const { MaybeUninit::<Tile<W>>::uninit() }; UNIT];
        for from in (0..panel.blocks).step_by(UNIT) {
            let count = UNIT.min(panel.blocks - from);
            match all {
                1 => Columns::<W, 1>::straight::<F>(panel, from, count),
                2 => Columns::<W, 2>::straight::<F>(panel, from, count),
                3 if W::STRAIGHT >= 3 => Columns::<W, 3>::straight::<F>(panel, from, count),
                4 if W::STRAIGHT >= 4 => Columns::<W, 4>::straight::<F>(panel, from, count),
                _ => {
                    panel.unpack::<F, W>(from, count, |index, tile| {
                        tiles[index].write(tile);
                    });
                    let tiles = tiles[..count].assume_init_ref();
                    let mut column = 0;
                    while column < all {
                        column += match (all - column).min(W::COLUMNS) {
                            8.. => Columns::<W, 8>::of(panel, from, column).add_all::<F>(tiles),
                            4.. => Columns::<W, 4>::of(panel, from, column).add_all::<F>(tiles),
                            2.. => Columns::<W, 2>::of(panel, from, column).add_all::<F>(tiles),
                            _ => Columns::<W, 1>::of(panel, from, column).add_all::<F>(tiles),
                        };
                    }
                }
            }
        }
    }
}

/// `N` columns of a panel, from a block on.
struct Columns<W: Words, const N: usize> {
    sums: [W::Floats; N],
    blocks: [*const Block; N],
    out: [*mut f32; N],
}

impl<W: Words, const N: usize> Columns<W, N> {
    /// Columns from `column` on, with what came of the blocks before `block`.
    #[inline(always)]
    unsafe fn of(panel: &Panel<'_>, block: usize, column: usize) -> Self {
        // SAFETY: the caller says that the panel has these columns, and that the processor has such vectors.
        unsafe {
            let out = std::array::from_fn(|index| panel.out.add((column + index) * panel.apart));
            let sums = out.map(|out| if block == 0 { W::Floats::set(0.0) } else { W::Floats::load(out) });
            let blocks = panel.activations.as_ptr().add(column * panel.blocks + block);
            let blocks = std::array::from_fn(|index| blocks.add(index * panel.blocks));
            Self { sums, blocks, out }
        }
    }

    /// Adds `count` blocks from `block` on, where these are all columns: what is used once need not be kept.
    #[inline(always)]
    unsafe fn straight<F: Format>(panel: &Panel<'_>, block: usize, count: usize) {
        // SAFETY: as the caller says.
        unsafe {
            let mut own = Self::of(panel, block, 0);
            panel.unpack::<F, W>(block, count, |index, tile| own.add::<F>(index, &tile));
            own.store();
        }
    }

    /// Adds a tile, which is `index` blocks further on.
    #[inline(always)]
    unsafe fn add<F: Format>(&mut self, index: usize, tile: &Tile<W>) {
        // SAFETY: the caller says that the columns have such a block, and what the processor has.
        unsafe { add::<F, W, N>(&mut self.sums, tile, self.blocks.map(|blocks| &*blocks.add(index))) };
    }

    /// Adds tiles, and says how many columns there are.
    #[inline(always)]
    unsafe fn add_all<F: Format>(mut self, tiles: &[Tile<W>]) -> usize {
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
            unsafe { sum.store(out) };
        }
    }
}
