//! Loads and bit operations that several formats share.

use crate::llama::kernels::simd::SimdI32;

/// Loads 32 bytes of each of 16 rows, in the order of [`SimdI32::load_transposed16`].
#[inline(always)]
pub(crate) unsafe fn load_transposed32<W: SimdI32>(ptr: *const u8, stride: usize) -> [W; 8] {
    // SAFETY: the caller ensures that these bytes are readable in 16 rows and that the processor supports
    // `W`.
    unsafe {
        let ([a, b, c, d], [e, f, g, h]) =
            (W::load_transposed16(ptr, stride), W::load_transposed16(ptr.add(16), stride));
        [a, b, c, d, e, f, g, h]
    }
}

/// Loads four bytes of each of 16 rows. The twelve bytes after them must be readable. (A gather is far
/// slower.)
#[inline(always)]
pub(crate) unsafe fn load_word<W: SimdI32>(ptr: *const u8, stride: usize) -> W {
    // SAFETY: as the caller promises.
    unsafe { W::load_transposed16(ptr, stride)[0] }
}

/// Loads four bytes of each of 16 rows. The twelve bytes before them must be readable.
#[inline(always)]
pub(crate) unsafe fn load_word_before<W: SimdI32>(ptr: *const u8, stride: usize) -> W {
    // SAFETY: as the caller promises.
    unsafe { W::load_transposed16(ptr.sub(12), stride)[3] }
}

/// Converts the half-precision number in the high 16 bits of each lane.
#[inline(always)]
pub(crate) unsafe fn high_f16_to_f32<W: SimdI32>(words: W) -> W::F32 {
    // SAFETY: the processor supports `W`.
    unsafe { words.shr(16).low_f16_to_f32() }
}

/// `mask` applied to each byte.
#[inline(always)]
pub(crate) unsafe fn mask_bytes<W: SimdI32>(bytes: W, mask: u8) -> W {
    // SAFETY: the processor supports `W`.
    unsafe { bytes.and(W::splat(i32::from_ne_bytes([mask; 4]))) }
}

/// The low four bits of each byte.
#[inline(always)]
pub(crate) unsafe fn low_nibbles<W: SimdI32>(bytes: W) -> W {
    // SAFETY: the processor supports `W`.
    unsafe { mask_bytes(bytes, 15) }
}

/// The high four bits of each byte.
#[inline(always)]
pub(crate) unsafe fn high_nibbles<W: SimdI32>(bytes: W) -> W {
    // SAFETY: the processor supports `W`.
    unsafe { low_nibbles(bytes.shr(4)) }
}

/// The bits of each byte that `mask` selects from bit `from` on, shifted left by `up`.
#[inline(always)]
pub(crate) unsafe fn extract_bits<W: SimdI32>(bytes: W, from: usize, mask: u8, up: usize) -> W {
    // SAFETY: the processor supports `W`.
    unsafe { mask_bytes(bytes.shr(from), mask).shl(up) }
}

/// Moves the four low bits of each lane to bit 4 of the lane's four bytes.
#[inline(always)]
pub(crate) unsafe fn spread_fifth_bits<W: SimdI32>(words: W) -> W {
    // SAFETY: the processor supports `W`.
    unsafe {
        // Bit `i` moves to bit `8 i`; the copies do not overlap.
        let spread = words.and(W::splat(15)).mullo(W::splat(0x0020_4081));
        mask_bytes(spread, 1).shl(4)
    }
}
