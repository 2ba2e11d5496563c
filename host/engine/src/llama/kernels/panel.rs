//! Panels: sixteen rows of weights times all columns of activations.

use std::arch::x86_64::{__m256i, __m512i, _MM_HINT_T1, _mm_prefetch};
use std::mem::MaybeUninit;

use llama_cpp_sys_2 as sys;

use crate::llama::kernels::activations::{ActivationBlock, BLOCK_SIZE};
use crate::llama::kernels::dot::{BlockFormat, MAX_TILES, PANEL_ROWS, Tile, accumulate_tile};
use crate::llama::kernels::k_quants::{Q2K, Q3K, Q4K, Q5K, Q6K};
use crate::llama::kernels::legacy_quants::{Iq4Nl, Q40, Q41, Q50, Q51, Q80};
use crate::llama::kernels::simd::{InstructionSet, QuantRange, SimdF32, SimdI32};

/// The weight formats that the kernels support.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WeightFormat {
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

/// Evaluates an expression with the format's type as `F`.
macro_rules! with_format {
    ($value:expr, $F:ident => $body:expr) => {
        match $value {
            WeightFormat::Q40 => with_format!(@ Q40, $F => $body),
            WeightFormat::Q41 => with_format!(@ Q41, $F => $body),
            WeightFormat::Q50 => with_format!(@ Q50, $F => $body),
            WeightFormat::Q51 => with_format!(@ Q51, $F => $body),
            WeightFormat::Q80 => with_format!(@ Q80, $F => $body),
            WeightFormat::Iq4Nl => with_format!(@ Iq4Nl, $F => $body),
            WeightFormat::Q2K => with_format!(@ Q2K, $F => $body),
            WeightFormat::Q3K => with_format!(@ Q3K, $F => $body),
            WeightFormat::Q4K => with_format!(@ Q4K, $F => $body),
            WeightFormat::Q5K => with_format!(@ Q5K, $F => $body),
            WeightFormat::Q6K => with_format!(@ Q6K, $F => $body),
        }
    };
    (@ $format:ident, $F:ident => $body:expr) => {{
        type $F = $format;
        $body
    }};
}

impl WeightFormat {
    /// The format of a ggml type.
    pub(crate) fn from_ggml(ggml_type: sys::ggml_type) -> Option<Self> {
        Some(match ggml_type {
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

    /// Number of weights in a block of ggml.
    pub(crate) fn block_weights(self) -> usize {
        with_format!(self, F => F::TILES_PER_BLOCK * BLOCK_SIZE)
    }

    /// Bytes of a block of ggml.
    pub(crate) fn block_bytes(self) -> usize {
        with_format!(self, F => F::BLOCK_BYTES)
    }

    /// Quantizes activations for weights of this format.
    pub(crate) fn quantize(self, values: &[f32; BLOCK_SIZE]) -> ActivationBlock {
        ActivationBlock::new(values, with_format!(self, F => F::ZERO_POINT))
    }

    /// Computes the sixteen rows of a panel.
    ///
    /// # Safety
    ///
    /// The processor supports `isa`, and the fields of `panel` are correct.
    pub(crate) unsafe fn multiply(self, isa: InstructionSet, panel: &Panel<'_>) {
        // SAFETY: as the caller promises.
        with_format!(self, F => unsafe {
            match isa {
                InstructionSet::Avx2 => multiply_avx2::<F>(panel),
                InstructionSet::Avx512 => multiply_avx512::<F>(panel),
            }
        });
    }
}

/// Sixteen rows of weights, and all columns of activations.
pub(crate) struct Panel<'a> {
    /// The first block of the first row. All sixteen rows are readable, `stride` bytes apart.
    pub weights: *const u8,
    pub stride: usize,
    /// The panel that is probably next, for prefetching.
    pub prefetch: *const u8,
    /// Blocks of 32 values per row and per column.
    pub blocks: usize,
    /// The columns, one after the other.
    pub activations: &'a [ActivationBlock],
    /// The sixteen results of the first column. The next column is `out_stride` values further.
    pub out: *mut f32,
    pub out_stride: usize,
}

impl Panel<'_> {
    /// Unpacks `count` tiles from `block` on and prefetches an equal part of the next panel. Sixteen streams
    /// exceed the hardware prefetcher, and prefetching them in one burst would stall.
    #[inline(always)]
    unsafe fn unpack<F: BlockFormat, W: SimdI32>(
        &self,
        block: usize,
        count: usize,
        mut emit: impl FnMut(usize, Tile<W>),
    ) {
        let tile_bytes = PANEL_ROWS * F::BLOCK_BYTES / F::TILES_PER_BLOCK;
        let prefetch = self.prefetch.wrapping_add(block * tile_bytes);
        // SAFETY: the caller ensures that the row has these blocks. A prefetch of unmapped memory has no
        // effect.
        unsafe {
            let weights = self.weights.add(block / F::TILES_PER_BLOCK * F::BLOCK_BYTES);
            F::unpack(weights, self.stride, count, |index, unpacked| {
                for line in (0..tile_bytes).step_by(64) {
                    _mm_prefetch::<_MM_HINT_T1>(prefetch.wrapping_add(index * tile_bytes + line).cast());
                }
                emit(index, unpacked);
            });
        }
    }
}

/// # Safety
///
/// The fields of `panel` are correct. The processor has AVX2, FMA and F16C.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn multiply_avx2<F: BlockFormat>(panel: &Panel<'_>) {
    // SAFETY: as the caller promises.
    unsafe { multiply::<F, [__m256i; 2]>(panel) };
}

/// # Safety
///
/// The fields of `panel` are correct. The processor has AVX-512 F, BW and VNNI.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn multiply_avx512<F: BlockFormat>(panel: &Panel<'_>) {
    // SAFETY: as the caller promises.
    unsafe { multiply::<F, __m512i>(panel) };
}

/// # Safety
///
/// The fields of `panel` are correct. The processor supports `W`.
#[inline(always)]
unsafe fn multiply<F: BlockFormat, W: SimdI32>(panel: &Panel<'_>) {
    // SAFETY: as the caller promises; block indices stay within rows and columns.
    unsafe {
        let column_count = panel.activations.len() / panel.blocks;
        let mut tiles = [const { MaybeUninit::<Tile<W>>::uninit() }; MAX_TILES];
        for from in (0..panel.blocks).step_by(MAX_TILES) {
            let count = MAX_TILES.min(panel.blocks - from);
            match column_count {
                1 => Columns::<W, 1>::accumulate_fused::<F>(panel, from, count),
                2 => Columns::<W, 2>::accumulate_fused::<F>(panel, from, count),
                3 if W::MAX_FUSED_COLUMNS >= 3 => Columns::<W, 3>::accumulate_fused::<F>(panel, from, count),
                4 if W::MAX_FUSED_COLUMNS >= 4 => Columns::<W, 4>::accumulate_fused::<F>(panel, from, count),
                _ => {
                    panel.unpack::<F, W>(from, count, |index, tile| {
                        tiles[index].write(tile);
                    });
                    let tiles = tiles[..count].assume_init_ref();
                    let mut column = 0;
                    while column < column_count {
                        column += match (column_count - column).min(W::MAX_COLUMNS) {
                            8.. => Columns::<W, 8>::load(panel, from, column).accumulate_all::<F>(tiles),
                            4.. => Columns::<W, 4>::load(panel, from, column).accumulate_all::<F>(tiles),
                            2.. => Columns::<W, 2>::load(panel, from, column).accumulate_all::<F>(tiles),
                            _ => Columns::<W, 1>::load(panel, from, column).accumulate_all::<F>(tiles),
                        };
                    }
                }
            }
        }
    }
}

/// The sums of `N` columns of a panel, and their blocks.
struct Columns<W: SimdI32, const N: usize> {
    sums: [W::F32; N],
    blocks: [*const ActivationBlock; N],
    out: [*mut f32; N],
}

impl<W: SimdI32, const N: usize> Columns<W, N> {
    /// The columns from `column` on, with their sums over the blocks before `block`.
    #[inline(always)]
    unsafe fn load(panel: &Panel<'_>, block: usize, column: usize) -> Self {
        // SAFETY: the caller ensures that the panel has these columns and that the processor supports `W`.
        unsafe {
            let out = std::array::from_fn(|index| panel.out.add((column + index) * panel.out_stride));
            let sums = out.map(|out| if block == 0 { W::F32::splat(0.0) } else { W::F32::load(out) });
            let blocks = panel.activations.as_ptr().add(column * panel.blocks + block);
            let blocks = std::array::from_fn(|index| blocks.add(index * panel.blocks));
            Self { sums, blocks, out }
        }
    }

    /// Adds `count` tiles from `block` on to all columns of the panel. Each tile is used immediately after
    /// unpacking, without a buffer.
    #[inline(always)]
    unsafe fn accumulate_fused<F: BlockFormat>(panel: &Panel<'_>, block: usize, count: usize) {
        // SAFETY: as the caller promises.
        unsafe {
            let mut columns = Self::load(panel, block, 0);
            panel.unpack::<F, W>(block, count, |index, tile| columns.accumulate::<F>(index, &tile));
            columns.store();
        }
    }

    /// Adds a tile that is `index` blocks after the first block.
    #[inline(always)]
    unsafe fn accumulate<F: BlockFormat>(&mut self, index: usize, tile: &Tile<W>) {
        // SAFETY: the caller ensures that the columns have this block and that the processor supports `W`.
        unsafe {
            accumulate_tile::<F, W, N>(&mut self.sums, tile, self.blocks.map(|blocks| &*blocks.add(index)))
        };
    }

    /// Adds all tiles, stores the sums, and returns the number of columns.
    #[inline(always)]
    unsafe fn accumulate_all<F: BlockFormat>(mut self, tiles: &[Tile<W>]) -> usize {
        // SAFETY: as the caller promises.
        unsafe {
            for (index, tile) in tiles.iter().enumerate() {
                self.accumulate::<F>(index, tile);
            }
            self.store();
        }
        N
    }

    #[inline(always)]
    unsafe fn store(&self) {
        for (sum, out) in self.sums.iter().zip(self.out) {
            // SAFETY: each result has room for 16 values.
            unsafe { sum.store(out) };
        }
    }
}
