//! K-quants: formats with super-blocks of 256 weights (`ggml-common.h`, `ggml-quants.c`).

use std::array::from_fn;

use crate::llama::kernels::dot::{BlockFormat, Tile};
use crate::llama::kernels::simd::{QuantRange, SimdF32, SimdI32};
use crate::llama::kernels::unpack::{
    extract_bits, high_f16_to_f32, high_nibbles, load_transposed32, load_word_before, low_nibbles, mask_bytes,
};

/// Byte `index` of each lane as a float.
#[inline(always)]
unsafe fn byte_to_f32<W: SimdI32>(words: W, index: usize) -> W::F32 {
    // SAFETY: the processor supports `W`.
    unsafe { words.shr(8 * index).and(W::splat(255)).to_f32() }
}

/// Signed byte `index` of each lane as a float.
#[inline(always)]
unsafe fn signed_byte_to_f32<W: SimdI32>(words: W, index: usize) -> W::F32 {
    // SAFETY: the processor supports `W`.
    unsafe { words.shl(24 - 8 * index).sra(24).to_f32() }
}

/// Scales and minima of `block_q4_K` and `block_q5_K`, which begin alike: 6 bits each per 32 weights.
#[inline(always)]
unsafe fn scales_and_mins<W: SimdI32>(block: *const u8, stride: usize) -> [(W::F32, Option<W::F32>); 8] {
    // SAFETY: the caller ensures that a block is readable in 16 rows and that the processor supports `W`.
    unsafe {
        let [packed, a, b, c] = W::load_transposed16(block, stride);
        let (scale, min) = (packed.low_f16_to_f32(), W::F32::splat(0.0).sub(high_f16_to_f32(packed)));
        let scales = [mask_bytes(a, 63), low_nibbles(c).or(extract_bits(a, 6, 3, 4))];
        let mins = [mask_bytes(b, 63), high_nibbles(c).or(extract_bits(b, 6, 3, 4))];
        from_fn(|index| {
            let part = |parts: [W; 2]| byte_to_f32(parts[index / 4], index % 4);
            (scale.mul(part(scales)), Some(min.mul(part(mins))))
        })
    }
}

/// `block_q4_K`: scale and minimum, 6-bit factors of both per 32 weights, 256 nibbles.
pub(crate) struct Q4K;

impl QuantRange for Q4K {
    const MAX_QUANT: i32 = 15;
    const ZERO_POINT: i32 = 0;
}

impl BlockFormat for Q4K {
    const BLOCK_BYTES: usize = 144;
    const TILES_PER_BLOCK: usize = 8;
    const SCALE_PER_16: bool = false;
    const HAS_MIN: bool = true;

    #[inline(always)]
    unsafe fn unpack<W: SimdI32>(
        block: *const u8,
        stride: usize,
        _: usize,
        mut emit: impl FnMut(usize, Tile<W>),
    ) {
        // SAFETY: as the caller promises.
        unsafe {
            let scales = scales_and_mins::<W>(block, stride);
            for pair in 0..4 {
                let packed = load_transposed32::<W>(block.add(16 + 32 * pair), stride);
                let (even, odd) = (2 * pair, 2 * pair + 1);
                emit(
                    even,
                    Tile::with_shared_scale(
                        packed.map(|packed| low_nibbles(packed)),
                        scales[even].0,
                        scales[even].1,
                    ),
                );
                emit(
                    odd,
                    Tile::with_shared_scale(
                        packed.map(|packed| high_nibbles(packed)),
                        scales[odd].0,
                        scales[odd].1,
                    ),
                );
            }
        }
    }
}

/// `block_q5_K`: like `block_q4_K`, with 256 fifth bits before the nibbles.
pub(crate) struct Q5K;

impl QuantRange for Q5K {
    const MAX_QUANT: i32 = 31;
    const ZERO_POINT: i32 = 0;
}

impl BlockFormat for Q5K {
    const BLOCK_BYTES: usize = 176;
    const TILES_PER_BLOCK: usize = 8;
    const SCALE_PER_16: bool = false;
    const HAS_MIN: bool = true;

    #[inline(always)]
    unsafe fn unpack<W: SimdI32>(
        block: *const u8,
        stride: usize,
        _: usize,
        mut emit: impl FnMut(usize, Tile<W>),
    ) {
        // SAFETY: as the caller promises.
        unsafe {
            let scales = scales_and_mins::<W>(block, stride);
            let high = load_transposed32::<W>(block.add(16), stride);
            for pair in 0..4 {
                let packed = load_transposed32::<W>(block.add(48 + 32 * pair), stride);
                let (even, odd) = (2 * pair, 2 * pair + 1);
                let fifth = |group: usize, index: usize| extract_bits(high[group], index, 1, 4);
                let quants = from_fn(|group| low_nibbles(packed[group]).or(fifth(group, even)));
                emit(even, Tile::with_shared_scale(quants, scales[even].0, scales[even].1));
                let quants = from_fn(|group| high_nibbles(packed[group]).or(fifth(group, odd)));
                emit(odd, Tile::with_shared_scale(quants, scales[odd].0, scales[odd].1));
            }
        }
    }
}

/// `block_q6_K`: 256 nibbles, 256 pairs of high bits, a signed factor of the scale per 16 weights, scale.
pub(crate) struct Q6K;

impl QuantRange for Q6K {
    const MAX_QUANT: i32 = 63;
    const ZERO_POINT: i32 = 32;
}

impl BlockFormat for Q6K {
    const BLOCK_BYTES: usize = 210;
    const TILES_PER_BLOCK: usize = 8;
    const SCALE_PER_16: bool = true;
    const HAS_MIN: bool = false;

    #[inline(always)]
    unsafe fn unpack<W: SimdI32>(
        block: *const u8,
        stride: usize,
        _: usize,
        mut emit: impl FnMut(usize, Tile<W>),
    ) {
        // SAFETY: as the caller promises.
        unsafe {
            let parts = W::load_transposed16(block.add(192), stride);
            let scale = high_f16_to_f32(load_word_before::<W>(block.add(206), stride));
            let scales = |index: usize| {
                [2 * index, 2 * index + 1]
                    .map(|part| scale.mul(signed_byte_to_f32(parts[part / 4], part % 4)))
            };
            let mins = [W::F32::splat(0.0); 2];
            for side in 0..2 {
                let (first, second) = (block.add(64 * side), block.add(64 * side + 32));
                let (first, second) =
                    (load_transposed32::<W>(first, stride), load_transposed32::<W>(second, stride));
                let high = load_transposed32::<W>(block.add(128 + 32 * side), stride);
                let mut emit_quants = |index: usize, quants: [W; 8]| {
                    emit(4 * side + index, Tile { quants, scales: scales(4 * side + index), mins });
                };
                emit_quants(
                    0,
                    from_fn(|group| low_nibbles(first[group]).or(extract_bits(high[group], 0, 3, 4))),
                );
                emit_quants(
                    1,
                    from_fn(|group| low_nibbles(second[group]).or(extract_bits(high[group], 2, 3, 4))),
                );
                emit_quants(
                    2,
                    from_fn(|group| high_nibbles(first[group]).or(extract_bits(high[group], 4, 3, 4))),
                );
                emit_quants(
                    3,
                    from_fn(|group| high_nibbles(second[group]).or(extract_bits(high[group], 6, 3, 4))),
                );
            }
        }
    }
}

/// `block_q2_K`: factors of scale and minimum per 16 weights, 256 pairs of bits, scale and minimum.
pub(crate) struct Q2K;

impl QuantRange for Q2K {
    const MAX_QUANT: i32 = 3;
    const ZERO_POINT: i32 = 0;
}

impl BlockFormat for Q2K {
    const BLOCK_BYTES: usize = 84;
    const TILES_PER_BLOCK: usize = 8;
    const SCALE_PER_16: bool = true;
    const HAS_MIN: bool = true;

    #[inline(always)]
    unsafe fn unpack<W: SimdI32>(
        block: *const u8,
        stride: usize,
        _: usize,
        mut emit: impl FnMut(usize, Tile<W>),
    ) {
        // SAFETY: as the caller promises.
        unsafe {
            let parts = W::load_transposed16(block, stride);
            let packed = load_word_before::<W>(block.add(80), stride);
            let (scale, min) = (packed.low_f16_to_f32(), W::F32::splat(0.0).sub(high_f16_to_f32(packed)));
            let quants = [
                load_transposed32::<W>(block.add(16), stride),
                load_transposed32::<W>(block.add(48), stride),
            ];
            for index in 0..8 {
                let part = |half: usize| (parts[(2 * index + half) / 4], (2 * index + half) % 4);
                let scales =
                    [part(0), part(1)].map(|(parts, part)| scale.mul(byte_to_f32(low_nibbles(parts), part)));
                let mins =
                    [part(0), part(1)].map(|(parts, part)| min.mul(byte_to_f32(high_nibbles(parts), part)));
                let quants = quants[index / 4].map(|quants| extract_bits(quants, 2 * (index % 4), 3, 0));
                emit(index, Tile { quants, scales, mins });
            }
        }
    }
}

/// `block_q3_K`: 256 third bits, 256 pairs of low bits, a 6-bit factor of the scale per 16 weights, scale.
pub(crate) struct Q3K;

impl QuantRange for Q3K {
    const MAX_QUANT: i32 = 7;
    const ZERO_POINT: i32 = 4;
}

impl BlockFormat for Q3K {
    const BLOCK_BYTES: usize = 110;
    const TILES_PER_BLOCK: usize = 8;
    const SCALE_PER_16: bool = true;
    const HAS_MIN: bool = false;

    #[inline(always)]
    unsafe fn unpack<W: SimdI32>(
        block: *const u8,
        stride: usize,
        _: usize,
        mut emit: impl FnMut(usize, Tile<W>),
    ) {
        // SAFETY: as the caller promises.
        unsafe {
            let [_, a, b, c] = W::load_transposed16(block.add(92), stride);
            let parts = [
                low_nibbles(a).or(extract_bits(c, 0, 3, 4)),
                low_nibbles(b).or(extract_bits(c, 2, 3, 4)),
                high_nibbles(a).or(extract_bits(c, 4, 3, 4)),
                high_nibbles(b).or(extract_bits(c, 6, 3, 4)),
            ];
            let scale = high_f16_to_f32(load_word_before::<W>(block.add(106), stride));
            let high = load_transposed32::<W>(block, stride);
            let low = [
                load_transposed32::<W>(block.add(32), stride),
                load_transposed32::<W>(block.add(64), stride),
            ];
            let mins = [W::F32::splat(0.0); 2];
            for index in 0..8 {
                let scales = [2 * index, 2 * index + 1]
                    .map(|part| scale.mul(byte_to_f32(parts[part / 4], part % 4).sub(W::F32::splat(32.0))));
                let quants = from_fn(|group| {
                    let high = extract_bits(high[group], index, 1, 2);
                    extract_bits(low[index / 4][group], 2 * (index % 4), 3, 0).or(high)
                });
                emit(index, Tile { quants, scales, mins });
            }
        }
    }
}
