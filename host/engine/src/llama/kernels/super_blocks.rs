//! Formats of super-blocks of 256 weights: the K-quants (`ggml-common.h`, `ggml-quants.c`).

use std::arch::x86_64::{
    __m512, __m512i, _mm512_and_si512, _mm512_cvtepi32_ps, _mm512_mul_ps, _mm512_set1_epi32, _mm512_set1_ps,
    _mm512_setzero_ps, _mm512_slli_epi32, _mm512_sllv_epi32, _mm512_srai_epi32, _mm512_srlv_epi32,
    _mm512_sub_ps,
};
use std::array::from_fn;

use super::dot::{Format, Tile};
use super::unpack::{
    bits, high_half, high_nibbles, last_word, low_half, low_nibbles, masked, or, sixteen, thirty_two,
};

/// Byte `index` of each lane, as a number.
#[inline(always)]
unsafe fn byte(words: __m512i, index: usize) -> __m512 {
    // SAFETY: the caller's processor has AVX-512.
    unsafe {
        let down = _mm512_srlv_epi32(words, _mm512_set1_epi32(8 * index as i32));
        _mm512_cvtepi32_ps(_mm512_and_si512(down, _mm512_set1_epi32(255)))
    }
}

/// The same of a signed byte.
#[inline(always)]
unsafe fn signed_byte(words: __m512i, index: usize) -> __m512 {
    // SAFETY: the caller's processor has AVX-512.
    unsafe {
        let top = _mm512_sllv_epi32(words, _mm512_set1_epi32(24 - 8 * index as i32));
        _mm512_cvtepi32_ps(_mm512_srai_epi32::<24>(top))
    }
}

/// Bits `from` and up of each byte that `mask` has.
#[inline(always)]
unsafe fn down(bytes: __m512i, from: usize, mask: i8) -> __m512i {
    // SAFETY: the caller's processor has AVX-512.
    unsafe { masked(_mm512_srlv_epi32(bytes, _mm512_set1_epi32(from as i32)), mask) }
}

/// Scales and minima of `block_q4_K` and `block_q5_K`, which begin alike: 6 bits each, for 32 weights.
#[inline(always)]
unsafe fn head(block: *const u8, stride: usize) -> [(__m512, Option<__m512>); 8] {
    // SAFETY: the caller says that a block is readable in 16 rows, and that the processor has AVX-512.
    unsafe {
        let [both, a, b, c] = sixteen(block, stride);
        let (scale, min) = (low_half(both), _mm512_sub_ps(_mm512_setzero_ps(), high_half(both)));
        let scales = [masked(a, 63), or(low_nibbles(c), bits::<6, 4>(a, 3))];
        let mins = [masked(b, 63), or(high_nibbles(c), bits::<6, 4>(b, 3))];
        from_fn(|index| {
            let part = |parts: [__m512i; 2]| byte(parts[index / 4], index % 4);
            (_mm512_mul_ps(scale, part(scales)), Some(_mm512_mul_ps(min, part(mins))))
        })
    }
}

/// `block_q4_K`: scale and minimum, their parts for 32 weights each, 256 nibbles.
pub(super) struct Q4K;

impl Format for Q4K {
    const BYTES: usize = 144;
    const BLOCKS: usize = 8;
    const OFFSET: i32 = 0;
    const HALVES: bool = false;
    const MINS: bool = true;

    #[inline(always)]
    unsafe fn unpack(block: *const u8, stride: usize, _: usize, mut tile: impl FnMut(usize, Tile)) {
        // SAFETY: as the caller says.
        unsafe {
            let head = head(block, stride);
            for pair in 0..4 {
                let both = thirty_two(block.add(16 + 32 * pair), stride);
                let (one, other) = (2 * pair, 2 * pair + 1);
                tile(one, Tile::shared(both.map(|both| low_nibbles(both)), head[one].0, head[one].1));
                tile(other, Tile::shared(both.map(|both| high_nibbles(both)), head[other].0, head[other].1));
            }
        }
    }
}

/// `block_q5_K`: as `block_q4_K`, with 256 fifth bits before the nibbles.
pub(super) struct Q5K;

impl Format for Q5K {
    const BYTES: usize = 176;
    const BLOCKS: usize = 8;
    const OFFSET: i32 = 0;
    const HALVES: bool = false;
    const MINS: bool = true;

    #[inline(always)]
    unsafe fn unpack(block: *const u8, stride: usize, _: usize, mut tile: impl FnMut(usize, Tile)) {
        // SAFETY: as the caller says.
        unsafe {
            let head = head(block, stride);
            let above = thirty_two(block.add(16), stride);
            for pair in 0..4 {
                let both = thirty_two(block.add(48 + 32 * pair), stride);
                let (one, other) = (2 * pair, 2 * pair + 1);
                let fifth = |group: usize, index: usize| _mm512_slli_epi32::<4>(down(above[group], index, 1));
                let quants = from_fn(|group| or(low_nibbles(both[group]), fifth(group, one)));
                tile(one, Tile::shared(quants, head[one].0, head[one].1));
                let quants = from_fn(|group| or(high_nibbles(both[group]), fifth(group, other)));
                tile(other, Tile::shared(quants, head[other].0, head[other].1));
            }
        }
    }
}

/// `block_q6_K`: 256 nibbles, 256 pairs of bits above them, a signed part of the scale for 16 weights each, scale.
pub(super) struct Q6K;

impl Format for Q6K {
    const BYTES: usize = 210;
    const BLOCKS: usize = 8;
    const OFFSET: i32 = 32;
    const HALVES: bool = true;
    const MINS: bool = false;

    #[inline(always)]
    unsafe fn unpack(block: *const u8, stride: usize, _: usize, mut tile: impl FnMut(usize, Tile)) {
        // SAFETY: as the caller says.
        unsafe {
            let parts = sixteen(block.add(192), stride);
            let scale = last_word(block.add(206), stride);
            let scale = high_half(scale);
            let scales = |index: usize| {
                [2 * index, 2 * index + 1]
                    .map(|part| _mm512_mul_ps(scale, signed_byte(parts[part / 4], part % 4)))
            };
            let mins = [_mm512_setzero_ps(); 2];
            for side in 0..2 {
                let (first, second) = (block.add(64 * side), block.add(64 * side + 32));
                let (first, second) = (thirty_two(first, stride), thirty_two(second, stride));
                let above = thirty_two(block.add(128 + 32 * side), stride);
                let mut put = |index: usize, quants: [__m512i; 8]| {
                    tile(4 * side + index, Tile { quants, scales: scales(4 * side + index), mins });
                };
                put(0, from_fn(|at| or(low_nibbles(first[at]), bits::<0, 4>(above[at], 3))));
                put(1, from_fn(|at| or(low_nibbles(second[at]), bits::<2, 4>(above[at], 3))));
                put(2, from_fn(|at| or(high_nibbles(first[at]), bits::<4, 4>(above[at], 3))));
                put(3, from_fn(|at| or(high_nibbles(second[at]), bits::<6, 4>(above[at], 3))));
            }
        }
    }
}

/// `block_q2_K`: parts of scale and minimum for 16 weights each, 256 pairs of bits, scale and minimum.
pub(super) struct Q2K;

impl Format for Q2K {
    const BYTES: usize = 84;
    const BLOCKS: usize = 8;
    const OFFSET: i32 = 0;
    const HALVES: bool = true;
    const MINS: bool = true;

    #[inline(always)]
    unsafe fn unpack(block: *const u8, stride: usize, _: usize, mut tile: impl FnMut(usize, Tile)) {
        // SAFETY: as the caller says.
        unsafe {
            let parts = sixteen(block, stride);
            let both = last_word(block.add(80), stride);
            let (scale, min) = (low_half(both), _mm512_sub_ps(_mm512_setzero_ps(), high_half(both)));
            let quants = [thirty_two(block.add(16), stride), thirty_two(block.add(48), stride)];
            for index in 0..8 {
                let part = |half: usize| (parts[(2 * index + half) / 4], (2 * index + half) % 4);
                let scales = [part(0), part(1)]
                    .map(|(parts, part)| _mm512_mul_ps(scale, byte(low_nibbles(parts), part)));
                let mins = [part(0), part(1)]
                    .map(|(parts, part)| _mm512_mul_ps(min, byte(high_nibbles(parts), part)));
                let quants = quants[index / 4].map(|quants| down(quants, 2 * (index % 4), 3));
                tile(index, Tile { quants, scales, mins });
            }
        }
    }
}

/// `block_q3_K`: 256 third bits, 256 pairs of bits below them, a 6-bit part of the scale for 16 weights each, scale.
pub(super) struct Q3K;

impl Format for Q3K {
    const BYTES: usize = 110;
    const BLOCKS: usize = 8;
    const OFFSET: i32 = 4;
    const HALVES: bool = true;
    const MINS: bool = false;

    #[inline(always)]
    unsafe fn unpack(block: *const u8, stride: usize, _: usize, mut tile: impl FnMut(usize, Tile)) {
        // SAFETY: as the caller says.
        unsafe {
            let [_, a, b, c] = sixteen(block.add(92), stride);
            let parts = [
                or(low_nibbles(a), bits::<0, 4>(c, 3)),
                or(low_nibbles(b), bits::<2, 4>(c, 3)),
                or(high_nibbles(a), bits::<4, 4>(c, 3)),
                or(high_nibbles(b), bits::<6, 4>(c, 3)),
            ];
            let scale = high_half(last_word(block.add(106), stride));
            let above = thirty_two(block, stride);
            let below = [thirty_two(block.add(32), stride), thirty_two(block.add(64), stride)];
            let mins = [_mm512_setzero_ps(); 2];
            for index in 0..8 {
                let scales = [2 * index, 2 * index + 1].map(|part| {
                    let part = _mm512_sub_ps(byte(parts[part / 4], part % 4), _mm512_set1_ps(32.0));
                    _mm512_mul_ps(scale, part)
                });
                let quants = from_fn(|group| {
                    let above = _mm512_slli_epi32::<2>(down(above[group], index, 1));
                    or(down(below[index / 4][group], 2 * (index % 4), 3), above)
                });
                tile(index, Tile { quants, scales, mins });
            }
        }
    }
}
