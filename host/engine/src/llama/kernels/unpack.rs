//! Reading sixteen rows at once: what formats have in common.

use std::arch::x86_64::{
    __m512, __m512i, _mm_loadu_si128, _mm512_and_si512, _mm512_castsi128_si512, _mm512_cvtepi32_epi16,
    _mm512_cvtph_ps, _mm512_inserti32x4, _mm512_mullo_epi32, _mm512_or_si512, _mm512_set1_epi8,
    _mm512_set1_epi32, _mm512_slli_epi32, _mm512_srli_epi32, _mm512_unpackhi_epi32, _mm512_unpackhi_epi64,
    _mm512_unpacklo_epi32, _mm512_unpacklo_epi64,
};

/// Sixteen bytes of each of 16 rows: vector `i` has bytes `4 i` to `4 i + 3` of row `r` in lane `r`.
#[inline(always)]
pub(super) unsafe fn sixteen(at: *const u8, stride: usize) -> [__m512i; 4] {
    // SAFETY: the caller says that these bytes are readable in 16 rows, and that the processor has AVX-512.
    unsafe {
        let row = |row: usize| _mm_loadu_si128(at.add(row * stride).cast());
        // Rows `first`, `first + 4`, ..., a quarter of the vector each.
        let rows = |first: usize| {
            let rows = _mm512_castsi128_si512(row(first));
            let rows = _mm512_inserti32x4::<1>(rows, row(first + 4));
            let rows = _mm512_inserti32x4::<2>(rows, row(first + 8));
            _mm512_inserti32x4::<3>(rows, row(first + 12))
        };
        // Four by four words are transposed in each quarter.
        let (a, b, c, d) = (rows(0), rows(1), rows(2), rows(3));
        let (low, high) = (_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
        let (low2, high2) = (_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
        [
            _mm512_unpacklo_epi64(low, low2),
            _mm512_unpackhi_epi64(low, low2),
            _mm512_unpacklo_epi64(high, high2),
            _mm512_unpackhi_epi64(high, high2),
        ]
    }
}

/// Thirty-two bytes of each of 16 rows, likewise.
#[inline(always)]
pub(super) unsafe fn thirty_two(at: *const u8, stride: usize) -> [__m512i; 8] {
    // SAFETY: as the caller says.
    unsafe {
        let ([a, b, c, d], [e, f, g, h]) = (sixteen(at, stride), sixteen(at.add(16), stride));
        [a, b, c, d, e, f, g, h]
    }
}

/// Four bytes of each of 16 rows, with twelve readable ones behind them. (A gather takes far longer.)
#[inline(always)]
pub(super) unsafe fn word(at: *const u8, stride: usize) -> __m512i {
    // SAFETY: as the caller says.
    unsafe { sixteen(at, stride)[0] }
}

/// Four bytes of each of 16 rows, with twelve readable ones before them.
#[inline(always)]
pub(super) unsafe fn last_word(at: *const u8, stride: usize) -> __m512i {
    // SAFETY: as the caller says.
    unsafe { sixteen(at.sub(12), stride)[3] }
}

/// The half-precision number in the lower half of each lane.
#[inline(always)]
pub(super) unsafe fn low_half(words: __m512i) -> __m512 {
    // SAFETY: the caller's processor has AVX-512.
    unsafe { _mm512_cvtph_ps(_mm512_cvtepi32_epi16(words)) }
}

/// The one in the upper half.
#[inline(always)]
pub(super) unsafe fn high_half(words: __m512i) -> __m512 {
    // SAFETY: the caller's processor has AVX-512.
    unsafe { low_half(_mm512_srli_epi32::<16>(words)) }
}

/// The bits of each byte that `mask` has.
#[inline(always)]
pub(super) unsafe fn masked(bytes: __m512i, mask: i8) -> __m512i {
    // SAFETY: the caller's processor has AVX-512.
    unsafe { _mm512_and_si512(bytes, _mm512_set1_epi8(mask)) }
}

/// The lower four bits of each byte.
#[inline(always)]
pub(super) unsafe fn low_nibbles(bytes: __m512i) -> __m512i {
    // SAFETY: the caller's processor has AVX-512.
    unsafe { masked(bytes, 15) }
}

/// The upper four.
#[inline(always)]
pub(super) unsafe fn high_nibbles(bytes: __m512i) -> __m512i {
    // SAFETY: the caller's processor has AVX-512.
    unsafe { low_nibbles(_mm512_srli_epi32::<4>(bytes)) }
}

/// Bits `FROM` and up of each byte that `mask` has, put `UP` bits up.
#[inline(always)]
pub(super) unsafe fn bits<const FROM: u32, const UP: u32>(bytes: __m512i, mask: i8) -> __m512i {
    // SAFETY: the caller's processor has AVX-512.
    unsafe { _mm512_slli_epi32::<UP>(masked(_mm512_srli_epi32::<FROM>(bytes), mask)) }
}

/// The four lowest bits of each lane, as the fifth bit of one of its bytes each.
#[inline(always)]
pub(super) unsafe fn fifth_bits(words: __m512i) -> __m512i {
    // SAFETY: the caller's processor has AVX-512.
    unsafe {
        let four = _mm512_and_si512(words, _mm512_set1_epi32(15));
        // Bit `i` goes to bit `8 i`; no two meet.
        let spread = _mm512_mullo_epi32(four, _mm512_set1_epi32(0x0020_4081));
        _mm512_slli_epi32::<4>(masked(spread, 1))
    }
}

/// Either's bits.
#[inline(always)]
pub(super) unsafe fn or(one: __m512i, other: __m512i) -> __m512i {
    // SAFETY: the caller's processor has AVX-512.
    unsafe { _mm512_or_si512(one, other) }
}
