//! Vectors of AVX2, with FMA and F16C: two of eight lanes each.

use std::arch::x86_64::{
    __m128i, __m256, __m256i, _mm_add_ps, _mm_cvtss_f32, _mm_loadu_si128, _mm_max_ps, _mm_movehl_ps,
    _mm_packus_epi32, _mm_shuffle_ps, _mm256_abs_epi8, _mm256_add_epi16, _mm256_add_epi32, _mm256_add_ps,
    _mm256_and_si256, _mm256_blendv_ps, _mm256_broadcastsi128_si256, _mm256_castpd_ps, _mm256_castps_pd,
    _mm256_castps256_ps128, _mm256_castsi128_si256, _mm256_castsi256_ps, _mm256_castsi256_si128,
    _mm256_cmpeq_epi16, _mm256_cvtepi32_ps, _mm256_cvtph_ps, _mm256_cvtps_epi32, _mm256_extractf128_ps,
    _mm256_extracti128_si256, _mm256_fmadd_ps, _mm256_fnmadd_ps, _mm256_inserti128_si256, _mm256_loadu_ps,
    _mm256_loadu_si256, _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_max_ps, _mm256_movemask_epi8,
    _mm256_mul_ps, _mm256_mullo_epi32, _mm256_or_si256, _mm256_packs_epi16, _mm256_permute2f128_ps,
    _mm256_permute4x64_epi64, _mm256_round_ps, _mm256_set1_epi8, _mm256_set1_epi16, _mm256_set1_epi32,
    _mm256_set1_ps, _mm256_setzero_si256, _mm256_shuffle_epi8, _mm256_sign_epi8, _mm256_slli_epi32,
    _mm256_sllv_epi32, _mm256_srav_epi32, _mm256_srlv_epi32, _mm256_storeu_ps, _mm256_sub_epi32,
    _mm256_sub_ps, _mm256_unpackhi_epi32, _mm256_unpackhi_epi64, _mm256_unpackhi_pd, _mm256_unpackhi_ps,
    _mm256_unpacklo_epi32, _mm256_unpacklo_epi64, _mm256_unpacklo_pd, _mm256_unpacklo_ps, _mm256_xor_si256,
};

use crate::llama::kernels::vectors::{Floats, LANES, QuantRange, Words};

// SAFETY of every block here: the caller's processor has what the traits ask for, and its pointers lead to what
// they say.

/// Does the same with either vector of two.
#[inline(always)]
fn each<A: Copy, B>(both: [A; 2], operation: impl Fn(A) -> B) -> [B; 2] {
    [operation(both[0]), operation(both[1])]
}

/// Does the same with either vector of two, and of two others.
#[inline(always)]
fn both<A: Copy, B>(one: [A; 2], other: [A; 2], operation: impl Fn(A, A) -> B) -> [B; 2] {
    [operation(one[0], other[0]), operation(one[1], other[1])]
}

/// The greatest quant of a format that is positive as a signed byte.
const POSITIVE: i32 = 127;

impl Words for [__m256i; 2] {
    type Floats = [__m256; 2];

    const COLUMNS: usize = 4;
    const STRAIGHT: usize = 4;

    #[inline(always)]
    unsafe fn sixteen(at: *const u8, stride: usize) -> [Self; 4] {
        // SAFETY: as above.
        unsafe {
            let row = |row: usize| _mm_loadu_si128(at.add(row * stride).cast());
            let eight = |from: usize| {
                // Rows `first` and `first + 4`, a half of the vector each.
                let rows = |first: usize| {
                    let rows = _mm256_castsi128_si256(row(first));
                    _mm256_inserti128_si256::<1>(rows, row(first + 4))
                };
                // Four by four words are transposed in each half.
                let (a, b, c, d) = (rows(from), rows(from + 1), rows(from + 2), rows(from + 3));
                let (low, high) = (_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
                let (low2, high2) = (_mm256_unpacklo_epi32(c, d), _mm256_unpackhi_epi32(c, d));
                [
                    _mm256_unpacklo_epi64(low, low2),
                    _mm256_unpackhi_epi64(low, low2),
                    _mm256_unpacklo_epi64(high, high2),
                    _mm256_unpackhi_epi64(high, high2),
                ]
            };
            let (one, other) = (eight(0), eight(8));
            [[one[0], other[0]], [one[1], other[1]], [one[2], other[2]], [one[3], other[3]]]
        }
    }

    #[inline(always)]
    unsafe fn set(number: i32) -> Self {
        // SAFETY: as above.
        unsafe { [_mm256_set1_epi32(number); 2] }
    }

    #[inline(always)]
    unsafe fn and(self, other: Self) -> Self {
        // SAFETY: as above.
        both(self, other, |one, other| unsafe { _mm256_and_si256(one, other) })
    }

    #[inline(always)]
    unsafe fn or(self, other: Self) -> Self {
        // SAFETY: as above.
        both(self, other, |one, other| unsafe { _mm256_or_si256(one, other) })
    }

    #[inline(always)]
    unsafe fn xor(self, other: Self) -> Self {
        // SAFETY: as above.
        both(self, other, |one, other| unsafe { _mm256_xor_si256(one, other) })
    }

    #[inline(always)]
    unsafe fn up(self, bits: usize) -> Self {
        // SAFETY: as above.
        each(self, |words| unsafe { _mm256_sllv_epi32(words, _mm256_set1_epi32(bits as i32)) })
    }

    #[inline(always)]
    unsafe fn down(self, bits: usize) -> Self {
        // SAFETY: as above.
        each(self, |words| unsafe { _mm256_srlv_epi32(words, _mm256_set1_epi32(bits as i32)) })
    }

    #[inline(always)]
    unsafe fn down_signed(self, bits: usize) -> Self {
        // SAFETY: as above.
        each(self, |words| unsafe { _mm256_srav_epi32(words, _mm256_set1_epi32(bits as i32)) })
    }

    #[inline(always)]
    unsafe fn times(self, other: Self) -> Self {
        // SAFETY: as above.
        both(self, other, |one, other| unsafe { _mm256_mullo_epi32(one, other) })
    }

    #[inline(always)]
    unsafe fn look_up(self, table: &[u8; 16]) -> Self {
        // SAFETY: as above.
        each(self, |bytes| unsafe {
            let table = _mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast()));
            _mm256_shuffle_epi8(table, bytes)
        })
    }

    #[inline(always)]
    unsafe fn floats(self) -> [__m256; 2] {
        // SAFETY: as above.
        each(self, |words| unsafe { _mm256_cvtepi32_ps(words) })
    }

    #[inline(always)]
    unsafe fn halves(self) -> [__m256; 2] {
        // SAFETY: as above.
        each(self, |words| unsafe {
            let lower = _mm256_and_si256(words, _mm256_set1_epi32(0xFFFF));
            let (one, other) = (_mm256_castsi256_si128(lower), _mm256_extracti128_si256::<1>(lower));
            _mm256_cvtph_ps(_mm_packus_epi32(one, other))
        })
    }

    #[inline(always)]
    unsafe fn unequal(numbers: &[u16; 32], number: u16) -> u32 {
        // SAFETY: as above.
        unsafe {
            let at = numbers.as_ptr().cast::<__m256i>();
            let equal = |index: usize| {
                _mm256_cmpeq_epi16(_mm256_loadu_si256(at.add(index)), _mm256_set1_epi16(number.cast_signed()))
            };
            // Packing leaves the two vectors' halves in turn.
            let bytes = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi16(equal(0), equal(1)));
            !_mm256_movemask_epi8(bytes).cast_unsigned()
        }
    }

    #[inline(always)]
    unsafe fn dots<F: QuantRange, const G: usize, const N: usize>(
        quants: &[Self; G],
        columns: [*const i8; N],
        starts: [i32; N],
    ) -> [Self; N] {
        // Groups of four whose products, two added up, can be added up in 16 bits.
        let depth = i32::from(i16::MAX) / (2 * 127 * F::MOST.min(128));
        let depth = (depth as usize).min(G);
        // SAFETY: as above.
        unsafe {
            let ones = _mm256_set1_epi16(1);
            let mut dots = [[_mm256_setzero_si256(); 2]; N];
            for first in 0..G / depth {
                let mut pairs = [[_mm256_setzero_si256(); 2]; N];
                for group in first * depth..(first + 1) * depth {
                    for (pairs, column) in pairs.iter_mut().zip(columns) {
                        let four = column.add(4 * group).cast::<i32>().read_unaligned();
                        let sums =
                            each(quants[group], |quants| products::<F>(quants, _mm256_set1_epi32(four)));
                        *pairs = both(*pairs, sums, |one, other| _mm256_add_epi16(one, other));
                    }
                }
                for (dots, pairs) in dots.iter_mut().zip(pairs) {
                    let sums = each(pairs, |pairs| _mm256_madd_epi16(pairs, ones));
                    *dots = both(*dots, sums, |one, other| _mm256_add_epi32(one, other));
                }
            }
            if 0 < F::OFFSET && F::MOST <= POSITIVE {
                for (dots, start) in dots.iter_mut().zip(starts) {
                    *dots = each(*dots, |dots| _mm256_add_epi32(dots, _mm256_set1_epi32(start)));
                }
            }
            dots
        }
    }
}

/// Products of bytes, two added up.
#[inline(always)]
unsafe fn products<F: QuantRange>(quants: __m256i, activations: __m256i) -> __m256i {
    // SAFETY: as above.
    unsafe {
        if F::MOST <= POSITIVE {
            _mm256_maddubs_epi16(quants, activations)
        } else {
            // Two products of such a byte do not fit: without the offset, which is 128, they do.
            let signed = _mm256_xor_si256(quants, _mm256_set1_epi8(-128));
            _mm256_maddubs_epi16(_mm256_abs_epi8(signed), _mm256_sign_epi8(activations, signed))
        }
    }
}

/// All lanes, added up.
///
/// # Safety
///
/// The processor has AVX.
#[inline(always)]
pub(crate) unsafe fn sum(floats: [__m256; 2]) -> f32 {
    // SAFETY: as above.
    unsafe {
        let eight = _mm256_add_ps(floats[0], floats[1]);
        let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
        let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_add_ps(two, _mm_shuffle_ps::<1>(two, two)))
    }
}

impl Floats for [__m256; 2] {
    const PARTS: usize = 1;

    #[inline(always)]
    unsafe fn set(number: f32) -> Self {
        // SAFETY: as above.
        unsafe { [_mm256_set1_ps(number); 2] }
    }

    #[inline(always)]
    unsafe fn load(at: *const f32) -> Self {
        // SAFETY: as above.
        unsafe { [_mm256_loadu_ps(at), _mm256_loadu_ps(at.add(8))] }
    }

    #[inline(always)]
    unsafe fn load_halves(at: *const u8) -> Self {
        let at = at.cast::<__m128i>();
        // SAFETY: as above.
        unsafe { [_mm256_cvtph_ps(_mm_loadu_si128(at)), _mm256_cvtph_ps(_mm_loadu_si128(at.add(1)))] }
    }

    #[inline(always)]
    unsafe fn store(self, at: *mut f32) {
        // SAFETY: as above.
        unsafe {
            _mm256_storeu_ps(at, self[0]);
            _mm256_storeu_ps(at.add(8), self[1]);
        }
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: as above.
        both(self, other, |one, other| unsafe { _mm256_sub_ps(one, other) })
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        // SAFETY: as above.
        both(self, other, |one, other| unsafe { _mm256_mul_ps(one, other) })
    }

    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, sum: Self) -> Self {
        // SAFETY: as above.
        each([0, 1], |half: usize| unsafe { _mm256_fmadd_ps(self[half], factor[half], sum[half]) })
    }

    #[inline(always)]
    unsafe fn mul_sub_from(self, factor: Self, sum: Self) -> Self {
        // SAFETY: as above.
        each([0, 1], |half: usize| unsafe { _mm256_fnmadd_ps(self[half], factor[half], sum[half]) })
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        // SAFETY: as above.
        both(self, other, |one, other| unsafe { _mm256_max_ps(one, other) })
    }

    #[inline(always)]
    unsafe fn round(self) -> Self {
        // SAFETY: as above.
        each(self, |floats| unsafe { _mm256_round_ps::<0x08>(floats) })
    }

    #[inline(always)]
    unsafe fn scale(self, whole: Self) -> Self {
        // SAFETY: as above.
        both(self, whole, |floats, whole| unsafe {
            // In two steps, of which the first is exact: one alone would be no normal number.
            let whole = _mm256_cvtps_epi32(whole);
            let step = _mm256_srav_epi32(whole, _mm256_set1_epi32(1));
            let power = |exponent| {
                let bits = _mm256_slli_epi32::<23>(_mm256_add_epi32(exponent, _mm256_set1_epi32(127)));
                _mm256_castsi256_ps(bits)
            };
            let rest = _mm256_sub_epi32(whole, step);
            _mm256_mul_ps(_mm256_mul_ps(floats, power(step)), power(rest))
        })
    }

    #[inline(always)]
    unsafe fn first(self, count: usize, rest: Self) -> Self {
        // All bits of a lane for `count` lanes, from the place that leaves as many.
        static MASK: [i32; 2 * LANES] = {
            let mut mask = [0; 2 * LANES];
            let mut lane = 0;
            while lane < LANES {
                mask[lane] = -1;
                lane += 1;
            }
            mask
        };
        let mask = MASK[LANES - count..].as_ptr();
        // SAFETY: as above; `count` is 16 at most, so that sixteen follow.
        each([0, 1], |half: usize| unsafe {
            let mask = _mm256_castsi256_ps(_mm256_loadu_si256(mask.add(8 * half).cast()));
            _mm256_blendv_ps(rest[half], self[half], mask)
        })
    }

    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        // SAFETY: as above.
        unsafe { sum(self) }
    }

    #[inline(always)]
    unsafe fn greatest(self) -> f32 {
        // SAFETY: as above.
        unsafe {
            let eight = _mm256_max_ps(self[0], self[1]);
            let four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ps(two, _mm_shuffle_ps::<1>(two, two)))
        }
    }

    #[inline(always)]
    unsafe fn across(vectors: &[Self; LANES]) -> Self {
        // SAFETY: as above.
        unsafe {
            let two = |half: usize, first: usize| {
                let (a, b) = (vectors[first][half], vectors[first + 1][half]);
                _mm256_add_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b))
            };
            let four = |half: usize, first: usize| {
                let a = _mm256_castps_pd(two(half, first));
                let b = _mm256_castps_pd(two(half, first + 2));
                _mm256_add_ps(
                    _mm256_castpd_ps(_mm256_unpacklo_pd(a, b)),
                    _mm256_castpd_ps(_mm256_unpackhi_pd(a, b)),
                )
            };
            // Eight vectors' sums over this half of their lanes.
            let eight = |half: usize, first: usize| {
                let (a, b) = (four(half, first), four(half, first + 4));
                _mm256_add_ps(_mm256_permute2f128_ps::<0x20>(a, b), _mm256_permute2f128_ps::<0x31>(a, b))
            };
            each([0, 1], |half: usize| _mm256_add_ps(eight(0, 8 * half), eight(1, 8 * half)))
        }
    }
}
