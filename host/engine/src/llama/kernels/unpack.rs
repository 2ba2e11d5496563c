//! Reading sixteen rows at once: what formats have in common.

use crate::llama::kernels::vectors::Words;

/// Thirty-two bytes of each of 16 rows, as [`Words::sixteen`] has them.
#[inline(always)]
pub(crate) unsafe fn thirty_two<W: Words>(at: *const u8, stride: usize) -> [W; 8] {
    // SAFETY: the caller says that these bytes are readable in 16 rows, and that the processor has such vectors.
    unsafe {
        let ([a, b, c, d], [e, f, g, h]) = (W::sixteen(at, stride), W::sixteen(at.add(16), stride));
        [a, b, c, d, e, f, g, h]
    }
}

/// Four bytes of each of 16 rows, with twelve readable ones behind them. (A gather takes far longer.)
#[inline(always)]
pub(crate) unsafe fn word<W: Words>(at: *const u8, stride: usize) -> W {
    // SAFETY: as the caller says.
    unsafe { W::sixteen(at, stride)[0] }
}

/// Four bytes of each of 16 rows, with twelve readable ones before them.
#[inline(always)]
pub(crate) unsafe fn last_word<W: Words>(at: *const u8, stride: usize) -> W {
    // SAFETY: as the caller says.
    unsafe { W::sixteen(at.sub(12), stride)[3] }
}

/// The half-precision number in the upper half of each lane.
#[inline(always)]
pub(crate) unsafe fn high_halves<W: Words>(words: W) -> W::Floats {
    // SAFETY: the caller's processor has such vectors.
    unsafe { words.down(16).halves() }
}

/// The bits of each byte that `mask` has.
#[inline(always)]
pub(crate) unsafe fn masked<W: Words>(bytes: W, mask: u8) -> W {
    // SAFETY: the caller's processor has such vectors.
    unsafe { bytes.and(W::set(i32::from_ne_bytes([mask; 4]))) }
}

/// The lower four bits of each byte.
#[inline(always)]
pub(crate) unsafe fn low_nibbles<W: Words>(bytes: W) -> W {
    // SAFETY: the caller's processor has such vectors.
    unsafe { masked(bytes, 15) }
}

/// The upper four.
#[inline(always)]
pub(crate) unsafe fn high_nibbles<W: Words>(bytes: W) -> W {
    // SAFETY: the caller's processor has such vectors.
    unsafe { low_nibbles(bytes.down(4)) }
}

/// Bits `from` and up of each byte that `mask` has, put `up` bits up.
#[inline(always)]
pub(crate) unsafe fn bits<W: Words>(bytes: W, from: usize, mask: u8, up: usize) -> W {
    // SAFETY: the caller's processor has such vectors.
    unsafe { masked(bytes.down(from), mask).up(up) }
}

/// The four lowest bits of each lane, as the fifth bit of one of its bytes each.
#[inline(always)]
pub(crate) unsafe fn fifth_bits<W: Words>(words: W) -> W {
    // SAFETY: the caller's processor has such vectors.
    unsafe {
        // Bit `i` goes to bit `8 i`; no two meet.
        let spread = words.and(W::set(15)).times(W::set(0x0020_4081));
        masked(spread, 1).up(4)
    }
}
