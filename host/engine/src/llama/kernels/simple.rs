//! Formats of blocks of 32 weights: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, IQ4_NL (`ggml-common.h`, `ggml-quants.c`).

use crate::llama::kernels::dot::{Format, Tile};
use crate::llama::kernels::unpack::{fifth_bits, high_halves, high_nibbles, low_nibbles, thirty_two, word};
use crate::llama::kernels::vectors::{QuantRange, Words};

/// 32 nibbles in 16 bytes: the first sixteen are the lower ones.
#[inline(always)]
unsafe fn nibbles<W: Words>(at: *const u8, stride: usize) -> [W; 8] {
    // SAFETY: the caller says that these bytes are readable in 16 rows, and that the processor has such vectors.
    unsafe {
        let [a, b, c, d] = W::sixteen(at, stride);
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
unsafe fn five_bits<W: Words>(at: *const u8, bits: W, stride: usize) -> [W; 8] {
    // SAFETY: as the caller says.
    unsafe {
        let mut quants = nibbles::<W>(at, stride);
        for (group, quants) in quants.iter_mut().enumerate() {
            *quants = quants.or(fifth_bits(bits.down(4 * group)));
        }
        quants
    }
}

macro_rules! format {
    ($name:ident, $text:literal, $bytes:literal, $most:literal, $offset:literal, $mins:literal,
        |$at:ident, $stride:ident| $unpack:expr) => {
        #[doc = $text]
        pub(crate) struct $name;

        impl QuantRange for $name {
            const MOST: i32 = $most;
            const OFFSET: i32 = $offset;
        }

        impl Format for $name {
            const BYTES: usize = $bytes;
            const BLOCKS: usize = 1;
            const HALVES: bool = false;
            const MINS: bool = $mins;

            #[inline(always)]
            unsafe fn unpack<W: Words>(
                block: *const u8,
                $stride: usize,
                count: usize,
                mut tile: impl FnMut(usize, Tile<W>),
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

format!(Q40, "`block_q4_0`: scale, 32 nibbles.", 18, 15, 8, false, |at, stride| {
    Tile::shared(nibbles(at.add(2), stride), word::<W>(at, stride).halves(), None)
});

format!(Q41, "`block_q4_1`: scale, minimum, 32 nibbles.", 20, 15, 0, true, |at, stride| {
    let both = word::<W>(at, stride);
    Tile::shared(nibbles(at.add(4), stride), both.halves(), Some(high_halves(both)))
});

format!(Q50, "`block_q5_0`: scale, 32 fifth bits, 32 nibbles.", 22, 31, 16, false, |at, stride| {
    let quants = five_bits(at.add(6), word(at.add(2), stride), stride);
    Tile::shared(quants, word::<W>(at, stride).halves(), None)
});

format!(Q51, "`block_q5_1`: scale, minimum, 32 fifth bits, 32 nibbles.", 24, 31, 0, true, |at, stride| {
    let both = word::<W>(at, stride);
    let quants = five_bits(at.add(8), word(at.add(4), stride), stride);
    Tile::shared(quants, both.halves(), Some(high_halves(both)))
});

format!(Q80, "`block_q8_0`: scale, 32 signed bytes.", 34, 255, 128, false, |at, stride| {
    let signs = W::set(i32::from_ne_bytes([128; 4]));
    let quants = thirty_two::<W>(at.add(2), stride).map(|quants| quants.xor(signs));
    Tile::shared(quants, word::<W>(at, stride).halves(), None)
});

/// `kvalues_iq4nl`, with 128 added.
static LEVELS: [u8; 16] = [1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241];

format!(
    Iq4Nl,
    "`block_iq4_nl`: scale, 32 nibbles, each a level's number.",
    18,
    241,
    128,
    false,
    |at, stride| {
        let quants = nibbles::<W>(at.add(2), stride).map(|quants| quants.look_up(&LEVELS));
        Tile::shared(quants, word::<W>(at, stride).halves(), None)
    }
);
