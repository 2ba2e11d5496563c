//! Legacy quants and IQ4_NL: formats with blocks of 32 weights (`ggml-common.h`, `ggml-quants.c`).

use crate::llama::kernels::dot::{BlockFormat, Tile};
use crate::llama::kernels::simd::{QuantRange, SimdI32};
use crate::llama::kernels::unpack::{
    high_f16_to_f32, high_nibbles, load_transposed32, load_word, low_nibbles, spread_fifth_bits,
};

/// Loads 32 nibbles from 16 bytes. The low nibbles are the first sixteen.
#[inline(always)]
unsafe fn load_nibbles<W: SimdI32>(ptr: *const u8, stride: usize) -> [W; 8] {
    // SAFETY: the caller ensures that these bytes are readable in 16 rows and that the processor supports
    // `W`.
    unsafe {
        let [a, b, c, d] = W::load_transposed16(ptr, stride);
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

/// Loads 32 nibbles and adds a fifth bit to each, from 32 bits per row.
#[inline(always)]
unsafe fn load_five_bit_quants<W: SimdI32>(ptr: *const u8, bits: W, stride: usize) -> [W; 8] {
    // SAFETY: as the caller promises.
    unsafe {
        let mut quants = load_nibbles::<W>(ptr, stride);
        for (group, quants) in quants.iter_mut().enumerate() {
            *quants = quants.or(spread_fifth_bits(bits.shr(4 * group)));
        }
        quants
    }
}

macro_rules! block_format {
    ($name:ident, $text:literal, $bytes:literal, $max_quant:literal, $zero_point:literal, $has_min:literal,
        |$ptr:ident, $stride:ident| $unpack:expr) => {
        #[doc = $text]
        pub(crate) struct $name;

        impl QuantRange for $name {
            const MAX_QUANT: i32 = $max_quant;
            const ZERO_POINT: i32 = $zero_point;
        }

        impl BlockFormat for $name {
            const BLOCK_BYTES: usize = $bytes;
            const TILES_PER_BLOCK: usize = 1;
            const SCALE_PER_16: bool = false;
            const HAS_MIN: bool = $has_min;

            #[inline(always)]
            unsafe fn unpack<W: SimdI32>(
                block: *const u8,
                $stride: usize,
                count: usize,
                mut emit: impl FnMut(usize, Tile<W>),
            ) {
                for index in 0..count {
                    // SAFETY: the caller ensures that `count` blocks are readable and that the processor
                    // supports `W`.
                    emit(index, unsafe {
                        let $ptr = block.add(index * $bytes);
                        $unpack
                    });
                }
            }
        }
    };
}

block_format!(Q40, "`block_q4_0`: scale, 32 nibbles.", 18, 15, 8, false, |ptr, stride| {
    Tile::with_shared_scale(
        load_nibbles(ptr.add(2), stride),
        load_word::<W>(ptr, stride).low_f16_to_f32(),
        None,
    )
});

block_format!(Q41, "`block_q4_1`: scale, minimum, 32 nibbles.", 20, 15, 0, true, |ptr, stride| {
    let packed = load_word::<W>(ptr, stride);
    Tile::with_shared_scale(
        load_nibbles(ptr.add(4), stride),
        packed.low_f16_to_f32(),
        Some(high_f16_to_f32(packed)),
    )
});

block_format!(Q50, "`block_q5_0`: scale, 32 fifth bits, 32 nibbles.", 22, 31, 16, false, |ptr, stride| {
    let quants = load_five_bit_quants(ptr.add(6), load_word(ptr.add(2), stride), stride);
    Tile::with_shared_scale(quants, load_word::<W>(ptr, stride).low_f16_to_f32(), None)
});

block_format!(
    Q51,
    "`block_q5_1`: scale, minimum, 32 fifth bits, 32 nibbles.",
    24,
    31,
    0,
    true,
    |ptr, stride| {
        let packed = load_word::<W>(ptr, stride);
        let quants = load_five_bit_quants(ptr.add(8), load_word(ptr.add(4), stride), stride);
        Tile::with_shared_scale(quants, packed.low_f16_to_f32(), Some(high_f16_to_f32(packed)))
    }
);

block_format!(Q80, "`block_q8_0`: scale, 32 signed bytes.", 34, 255, 128, false, |ptr, stride| {
    let signs = W::splat(i32::from_ne_bytes([128; 4]));
    let quants = load_transposed32::<W>(ptr.add(2), stride).map(|quants| quants.xor(signs));
    Tile::with_shared_scale(quants, load_word::<W>(ptr, stride).low_f16_to_f32(), None)
});

/// `kvalues_iq4nl` of ggml, plus 128.
static IQ4_NL_LEVELS: [u8; 16] = [1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241];

block_format!(
    Iq4Nl,
    "`block_iq4_nl`: scale, 32 nibbles, each a level's number.",
    18,
    241,
    128,
    false,
    |ptr, stride| {
        let quants = load_nibbles::<W>(ptr.add(2), stride).map(|quants| quants.shuffle(&IQ4_NL_LEVELS));
        Tile::with_shared_scale(quants, load_word::<W>(ptr, stride).low_f16_to_f32(), None)
    }
);
