//! Formats of blocks of 32 weights: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, IQ4_NL (`ggml-common.h`, `ggml-quants.c`).

use std::arch::x86_64::{
    __m512i, _mm_loadu_si128, _mm512_broadcast_i32x4, _mm512_set1_epi8, _mm512_set1_epi32,
    _mm512_shuffle_epi8, _mm512_srlv_epi32, _mm512_xor_si512,
};

use super::dot::{Format, Tile};
use super::unpack::{
    fifth_bits, high_half, high_nibbles, low_half, low_nibbles, or, sixteen, thirty_two, word,
};

/// 32 nibbles in 16 bytes: the first sixteen are the lower ones.
#[inline(always)]
unsafe fn nibbles(at: *const u8, stride: usize) -> [__m512i; 8] {
    // SAFETY: the caller says that these bytes are readable in 16 rows, and that the processor has AVX-512.
    unsafe {
        let [a, b, c, d] = sixteen(at, stride);
        [
            low_nibbles(a),
            low_nibbles(b),
            low_nibbles(c),
            low_nibbles(d),
            high_nibbles(a),
            high_nibbles(b),
            high_nibbles(c),
            high_nibbles(d),
        ]
    }
}

/// The same with a fifth bit for each, from 32 bits of each row.
#[inline(always)]
unsafe fn five_bits(at: *const u8, bits: __m512i, stride: usize) -> [__m512i; 8] {
    // SAFETY: as the caller says.
    unsafe {
        let mut quants = nibbles(at, stride);
        for (group, quants) in quants.iter_mut().enumerate() {
            let four = _mm512_srlv_epi32(bits, _mm512_set1_epi32(4 * group as i32));
            *quants = or(*quants, fifth_bits(four));
        }
        quants
    }
}

macro_rules! format {
    ($name:ident, $text:literal, $bytes:literal, $offset:literal, $mins:literal, |$at:ident, $stride:ident| $unpack:expr) => {
        #[doc = $text]
        pub(super) struct $name;

        impl Format for $name {
            const BYTES: usize = $bytes;
            const BLOCKS: usize = 1;
            const OFFSET: i32 = $offset;
            const HALVES: bool = false;
            const MINS: bool = $mins;

            #[inline(always)]
            unsafe fn unpack(
                block: *const u8,
                $stride: usize,
                count: usize,
                mut tile: impl FnMut(usize, Tile),
            ) {
                for index in 0..count {
                    // SAFETY: the caller says that so many blocks are readable, and what the processor has.
                    tile(index, unsafe {
                        let $at = block.add(index * $bytes);
                        $unpack
                    });
                }
            }
        }
    };
}

format!(Q40, "`block_q4_0`: scale, 32 nibbles.", 18, 8, false, |at, stride| {
    Tile::shared(nibbles(at.add(2), stride), low_half(word(at, stride)), None)
});

format!(Q41, "`block_q4_1`: scale, minimum, 32 nibbles.", 20, 0, true, |at, stride| {
    let both = word(at, stride);
    Tile::shared(nibbles(at.add(4), stride), low_half(both), Some(high_half(both)))
});

format!(Q50, "`block_q5_0`: scale, 32 fifth bits, 32 nibbles.", 22, 16, false, |at, stride| {
    let quants = five_bits(at.add(6), word(at.add(2), stride), stride);
    Tile::shared(quants, low_half(word(at, stride)), None)
});

format!(Q51, "`block_q5_1`: scale, minimum, 32 fifth bits, 32 nibbles.", 24, 0, true, |at, stride| {
    let both = word(at, stride);
    let quants = five_bits(at.add(8), word(at.add(4), stride), stride);
    Tile::shared(quants, low_half(both), Some(high_half(both)))
});

format!(Q80, "`block_q8_0`: scale, 32 signed bytes.", 34, 128, false, |at, stride| {
    let quants = thirty_two(at.add(2), stride).map(|quants| _mm512_xor_si512(quants, _mm512_set1_epi8(-128)));
    Tile::shared(quants, low_half(word(at, stride)), None)
});

/// `kvalues_iq4nl`, with 128 added.
static LEVELS: [u8; 16] = [1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241];

format!(Iq4Nl, "`block_iq4_nl`: scale, 32 nibbles, each a level's number.", 18, 128, false, |at, stride| {
    let levels = _mm512_broadcast_i32x4(_mm_loadu_si128(LEVELS.as_ptr().cast()));
    let quants = nibbles(at.add(2), stride).map(|quants| _mm512_shuffle_epi8(levels, quants));
    Tile::shared(quants, low_half(word(at, stride)), None)
});
