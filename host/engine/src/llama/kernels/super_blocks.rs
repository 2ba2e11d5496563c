//! Formats of super-blocks of 256 weights: the K-quants (`ggml-common.h`, `ggml-quants.c`).

use std::array::from_fn;

use crate::llama::kernels::dot::{Format, Tile};
use crate::llama::kernels::unpack::{
    bits, high_halves, high_nibbles, last_word, low_nibbles, masked, thirty_two,
};
use crate::llama::kernels::vectors::{Floats, QuantRange, Words};

/// Byte `index` of each lane, as a number.
#[inline(always)]
unsafe fn byte<W: Words>(words: W, index: usize) -> W::Floats {
    // SAFETY: the caller's processor has such vectors.
    unsafe { words.down(8 * index).and(W::set(255)).floats() }
}

/// The same of a signed byte.
#[inline(always)]
unsafe fn signed_byte<W: Words>(words: W, index: usize) -> W::Floats {
    // SAFETY: the caller's processor has such vectors.
    unsafe { words.up(24 - 8 * index).down_signed(24).floats() }
}

/// Scales and minima of `block_q4_K` and `block_q5_K`, which begin alike: 6 bits each, for 32 weights.
#[inline(always)]
unsafe fn head<W: Words>(block: *const u8, stride: usize) -> [(W::Floats, Option<W::Floats>); 8] {
    // SAFETY: the caller says that a block is readable in 16 rows, and that the processor has such vectors.
    unsafe {
        let [both, a, b, c] = W::sixteen(block, stride);
        let (scale, min) = (both.halves(), W::Floats::set(0.0).sub(high_halves(both)));
        let scales = [masked(a, 63), low_nibbles(c).or(bits(a, 6, 3, 4))];
        let mins = [masked(b, 63), high_nibbles(c).or(bits(b, 6, 3, 4))];
        from_fn(|index| {
            let part = |parts: [W; 2]| byte(parts[index / 4], index % 4);
            (scale.mul(part(scales)), Some(min.mul(part(mins))))
        })
    }
}

/// `block_q4_K`: scale and minimum, their parts for 32 weights each, 256 nibbles.
pub(crate) struct Q4K;

impl QuantRange for Q4K {
    const MOST: i32 = 15;
    const OFFSET: i32 = 0;
}

impl Format for Q4K {
    const BYTES: usize = 144;
    const BLOCKS: usize = 8;
    const HALVES: bool = false;
    const MINS: bool = true;

    #[inline(always)]
    unsafe fn unpack<W: Words>(
        block: *const u8,
        stride: usize,
        _: usize,
        mut tile: impl FnMut(usize, Tile<W>),
    ) {
        // SAFETY: as the caller says.
        unsafe {
            let head = head::<W>(block, stride);
            for pair in 0..4 {
                let both = thirty_two::<W>(block.add(16 + 32 * pair), stride);
                let (one, other) = (2 * pair, 2 * pair + 1);
                tile(one, Tile::shared(both.map(|both| low_nibbles(both)), head[one].0, head[one].1));
                tile(other, Tile::shared(both.map(|both| high_nibbles(both)), head[other].0, head[other].1));
            }
        }
    }
}

/// `block_q5_K`: as `block_q4_K`, with 256 fifth bits before the nibbles.
pub(crate) struct Q5K;

impl QuantRange for Q5K {
    const MOST: i32 = 31;
    const OFFSET: i32 = 0;
}

impl Format for Q5K {
    const BYTES: usize = 176;
    const BLOCKS: usize = 8;
    const HALVES: bool = false;
    const MINS: bool = true;

    #[inline(always)]
    unsafe fn unpack<W: Words>(
        block: *const u8,
        stride: usize,
        _: usize,
        mut tile: impl FnMut(usize, Tile<W>),
    ) {
        // SAFETY: as the caller says.
        unsafe {
            let head = head::<W>(block, stride);
            let above = thirty_two::<W>(block.add(16), stride);
            for pair in 0..4 {
                let both = thirty_two::<W>(block.add(48 + 32 * pair), stride);
                let (one, other) = (2 * pair, 2 * pair + 1);
                let fifth = |group: usize, index: usize| bits(above[group], index, 1, 4);
                let quants = from_fn(|group| low_nibbles(both[group]).or(fifth(group, one)));
                tile(one, Tile::shared(quants, head[one].0, head[one].1));
                let quants = from_fn(|group| high_nibbles(both[group]).or(fifth(group, other)));
                tile(other, Tile::shared(quants, head[other].0, head[other].1));
            }
        }
    }
}

/// `block_q6_K`: 256 nibbles, 256 pairs of bits above them, a signed part of the scale for 16 weights each, scale.
pub(crate) struct Q6K;

impl QuantRange for Q6K {
    const MOST: i32 = 63;
    const OFFSET: i32 = 32;
}

impl Format for Q6K {
    const BYTES: usize = 210;
    const BLOCKS: usize = 8;
    const HALVES: bool = true;
    const MINS: bool = false;

    #[inline(always)]
    unsafe fn unpack<W: Words>(
        block: *const u8,
        stride: usize,
        _: usize,
        mut tile: impl FnMut(usize, Tile<W>),
    ) {
        // SAFETY: as the caller says.
        unsafe {
            let parts = W::sixteen(block.add(192), stride);
            let scale = high_halves(last_word::<W>(block.add(206), stride));
            let scales = |index: usize| {
                [2 * index, 2 * index + 1].map(|part| scale.mul(signed_byte(parts[part / 4], part % 4)))
            };
            let mins = [W::Floats::set(0.0); 2];
            for side in 0..2 {
                let (first, second) = (block.add(64 * side), block.add(64 * side + 32));
                let (first, second) = (thirty_two::<W>(first, stride), thirty_two::<W>(second, stride));
                let above = thirty_two::<W>(block.add(128 + 32 * side), stride);
                let mut put = |index: usize, quants: [W; 8]| {
                    tile(4 * side + index, Tile { quants, scales: scales(4 * side + index), mins });
                };
                put(0, from_fn(|at| low_nibbles(first[at]).or(bits(above[at], 0, 3, 4))));
                put(1, from_fn(|at| low_nibbles(second[at]).or(bits(above[at], 2, 3, 4))));
                put(2, from_fn(|at| high_nibbles(first[at]).or(bits(above[at], 4, 3, 4))));
                put(3, from_fn(|at| high_nibbles(second[at]).or(bits(above[at], 6, 3, 4))));
            }
        }
    }
}

/// `block_q2_K`: parts of scale and minimum for 16 weights each, 256 pairs of bits, scale and minimum.
pub(crate) struct Q2K;

impl QuantRange for Q2K {
    const MOST: i32 = 3;
    const OFFSET: i32 = 0;
}

impl Format for Q2K {
    const BYTES: usize = 84;
    const BLOCKS: usize = 8;
    const HALVES: bool = true;
    const MINS: bool = true;

    #[inline(always)]
    unsafe fn unpack<W: Words>(
        block: *const u8,
        stride: usize,
        _: usize,
        mut tile: impl FnMut(usize, Tile<W>),
    ) {
        // SAFETY: as the caller says.
        unsafe {
            let parts = W::sixteen(block, stride);
            let both = last_word::<W>(block.add(80), stride);
            let (scale, min) = (both.halves(), W::Floats::set(0.0).sub(high_halves(both)));
            let quants = [thirty_two::<W>(block.add(16), stride), thirty_two::<W>(block.add(48), stride)];
            for index in 0..8 {
                let part = |half: usize| (parts[(2 * index + half) / 4], (2 * index + half) % 4);
                let scales =
                    [part(0), part(1)].map(|(parts, part)| scale.mul(byte(low_nibbles(parts), part)));
                let mins = [part(0), part(1)].map(|(parts, part)| min.mul(byte(high_nibbles(parts), part)));
                let quants = quants[index / 4].map(|quants| bits(quants, 2 * (index % 4), 3, 0));
                tile(index, Tile { quants, scales, mins });
            }
        }
    }
}

/// `block_q3_K`: 256 third bits, 256 pairs of bits below them, a 6-bit part of the scale for 16 weights each, scale.
pub(crate) struct Q3K;

impl QuantRange for Q3K {
    const MOST: i32 = 7;
    const OFFSET: i32 = 4;
}

impl Format for Q3K {
    const BYTES: usize = 110;
    const BLOCKS: usize = 8;
    const HALVES: bool = true;
    const MINS: bool = false;

    #[inline(always)]
    unsafe fn unpack<W: Words>(
        block: *const u8,
        stride: usize,
        _: usize,
        mut tile: impl FnMut(usize, Tile<W>),
    ) {
        // SAFETY: as the caller says.
        unsafe {
            let [_, a, b, c] = W::sixteen(block.add(92), stride);
            let parts = [
                low_nibbles(a).or(bits(c, 0, 3, 4)),
                low_nibbles(b).or(bits(c, 2, 3, 4)),
                high_nibbles(a).or(bits(c, 4, 3, 4)),
                high_nibbles(b).or(bits(c, 6, 3, 4)),
            ];
            let scale = high_halves(last_word::<W>(block.add(106), stride));
            let above = thirty_two::<W>(block, stride);
            let below = [thirty_two::<W>(block.add(32), stride), thirty_two::<W>(block.add(64), stride)];
            let mins = [W::Floats::set(0.0); 2];
            for index in 0..8 {
                let scales = [2 * index, 2 * index + 1]
                    .map(|part| scale.mul(byte(parts[part / 4], part % 4).sub(W::Floats::set(32.0))));
                let quants = from_fn(|group| {
                    let above = bits(above[group], index, 1, 2);
                    bits(below[index / 4][group], 2 * (index % 4), 3, 0).or(above)
                });
                tile(index, Tile { quants, scales, mins });
            }
        }
    }
}
