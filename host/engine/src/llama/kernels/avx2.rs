//! Vectors of AVX2, FMA and F16C: two vectors of eight lanes.

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

use crate::llama::kernels::simd::{LANES, QuantRange, SimdF32, SimdI32};

// SAFETY of all blocks in this file: the processor has the instructions of the traits, and the pointers
// satisfy the traits' descriptions.

/// Applies `operation` to both vectors.
#[inline(always)]
fn map2<A: Copy, B>(vectors: [A; 2], operation: impl Fn(A) -> B) -> [B; 2] {
    [operation(vectors[0]), operation(vectors[1])]
}

/// Applies `operation` to both pairs of vectors.
#[inline(always)]
fn zip2<A: Copy, B>(left: [A; 2], right: [A; 2], operation: impl Fn(A, A) -> B) -> [B; 2] {
    [operation(left[0], right[0]), operation(left[1], right[1])]
}

/// The greatest quant that is positive as a signed byte.
const MAX_SIGNED_QUANT: i32 = 127;

impl SimdI32 for [__m256i; 2] {
    type F32 = [__m256; 2];

    const MAX_COLUMNS: usize = 4;
    const MAX_FUSED_COLUMNS: usize = 4;

    #[inline(always)]
    unsafe fn load_transposed16(ptr: *const u8, stride: usize) -> [Self; 4] {
        // SAFETY: as above.
        unsafe {
            let row = |row: usize| _mm_loadu_si128(ptr.add(row * stride).cast());
            let transpose_eight_rows = |from: usize| {
                // Rows `first` and `first + 4`, one per half of the vector.
                let row_pair = |first: usize| {
                    let rows = _mm256_castsi128_si256(row(first));
                    _mm256_inserti128_si256::<1>(rows, row(first + 4))
                };
                // Transposes four by four words in each half.
                let (a, b, c, d) =
                    (row_pair(from), row_pair(from + 1), row_pair(from + 2), row_pair(from + 3));
                let (low, high) = (_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
                let (low2, high2) = (_mm256_unpacklo_epi32(c, d), _mm256_unpackhi_epi32(c, d));
                [
                    _mm256_unpacklo_epi64(low, low2),
                    _mm256_unpackhi_epi64(low, low2),
                    _mm256_unpacklo_epi64(high, high2),
                    _mm256_unpackhi_epi64(high, high2),
                ]
            };
            let (low_rows, high_rows) = (transpose_eight_rows(0), transpose_eight_rows(8));
            [
                [low_rows[0], high_rows[0]],
                [low_rows[1], high_rows[1]],
                [low_rows[2], high_rows[2]],
                [low_rows[3], high_rows[3]],
            ]
        }
    }

    #[inline(always)]
    unsafe fn splat(number: i32) -> Self {
        // SAFETY: as above.
        unsafe { [_mm256_set1_epi32(number); 2] }
    }

    #[inline(always)]
    unsafe fn and(self, other: Self) -> Self {
        // SAFETY: as above.
        zip2(self, other, |left, right| unsafe { _mm256_and_si256(left, right) })
    }

    #[inline(always)]
    unsafe fn or(self, other: Self) -> Self {
        // SAFETY: as above.
        zip2(self, other, |left, right| unsafe { _mm256_or_si256(left, right) })
    }

    #[inline(always)]
    unsafe fn xor(self, other: Self) -> Self {
        // SAFETY: as above.
        zip2(self, other, |left, right| unsafe { _mm256_xor_si256(left, right) })
    }

    #[inline(always)]
    unsafe fn shl(self, bits: usize) -> Self {
        // SAFETY: as above.
        map2(self, |words| unsafe { _mm256_sllv_epi32(words, _mm256_set1_epi32(bits as i32)) })
    }

    #[inline(always)]
    unsafe fn shr(self, bits: usize) -> Self {
        // SAFETY: as above.
        map2(self, |words| unsafe { _mm256_srlv_epi32(words, _mm256_set1_epi32(bits as i32)) })
    }

    #[inline(always)]
    unsafe fn sra(self, bits: usize) -> Self {
        // SAFETY: as above.
        map2(self, |words| unsafe { _mm256_srav_epi32(words, _mm256_set1_epi32(bits as i32)) })
    }

    #[inline(always)]
    unsafe fn mullo(self, other: Self) -> Self {
        // SAFETY: as above.
        zip2(self, other, |left, right| unsafe { _mm256_mullo_epi32(left, right) })
    }

    #[inline(always)]
    unsafe fn shuffle(self, table: &[u8; 16]) -> Self {
        // SAFETY: as above.
        map2(self, |bytes| unsafe {
            let table = _mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast()));
            _mm256_shuffle_epi8(table, bytes)
        })
    }

    #[inline(always)]
    unsafe fn to_f32(self) -> [__m256; 2] {
        // SAFETY: as above.
        map2(self, |words| unsafe { _mm256_cvtepi32_ps(words) })
    }

    #[inline(always)]
    unsafe fn low_f16_to_f32(self) -> [__m256; 2] {
        // SAFETY: as above.
        map2(self, |words| unsafe {
            let lower = _mm256_and_si256(words, _mm256_set1_epi32(0xFFFF));
            let (one, other) = (_mm256_castsi256_si128(lower), _mm256_extracti128_si256::<1>(lower));
            _mm256_cvtph_ps(_mm_packus_epi32(one, other))
        })
    }

    #[inline(always)]
    unsafe fn cmp_ne_u16(numbers: &[u16; 32], number: u16) -> u32 {
        // SAFETY: as above.
        unsafe {
            let ptr = numbers.as_ptr().cast::<__m256i>();
            let equal = |index: usize| {
                _mm256_cmpeq_epi16(
                    _mm256_loadu_si256(ptr.add(index)),
                    _mm256_set1_epi16(number.cast_signed()),
                )
            };
            // Packing interleaves the halves of the two vectors.
            let bytes = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi16(equal(0), equal(1)));
            !_mm256_movemask_epi8(bytes).cast_unsigned()
        }
    }

    #[inline(always)]
    unsafe fn dot_u8i8<F: QuantRange, const G: usize, const N: usize>(
        quants: &[Self; G],
        columns: [*const i8; N],
        zero_point_terms: [i32; N],
    ) -> [Self; N] {
        // Number of groups whose pair sums can be added in 16 bits without overflow.
        let depth = i32::from(i16::MAX) / (2 * 127 * F::MAX_QUANT.min(128));
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
                            map2(quants[group], |quants| products::<F>(quants, _mm256_set1_epi32(four)));
                        *pairs = zip2(*pairs, sums, |one, other| _mm256_add_epi16(one, other));
                    }
                }
                for (dots, pairs) in dots.iter_mut().zip(pairs) {
                    let sums = map2(pairs, |pairs| _mm256_madd_epi16(pairs, ones));
                    *dots = zip2(*dots, sums, |one, other| _mm256_add_epi32(one, other));
                }
            }
            if 0 < F::ZERO_POINT && F::MAX_QUANT <= MAX_SIGNED_QUANT {
                for (dots, term) in dots.iter_mut().zip(zero_point_terms) {
                    *dots = map2(*dots, |dots| _mm256_add_epi32(dots, _mm256_set1_epi32(term)));
                }
            }
            dots
        }
    }
}

/// Products of bytes, added in pairs.
#[inline(always)]
unsafe fn products<F: QuantRange>(quants: __m256i, activations: __m256i) -> __m256i {
    // SAFETY: as above.
    unsafe {
        if F::MAX_QUANT <= MAX_SIGNED_QUANT {
            _mm256_maddubs_epi16(quants, activations)
        } else {
            // Two products of such a byte would overflow. Without the zero point of 128, these products do
            // not overflow.
            let signed = _mm256_xor_si256(quants, _mm256_set1_epi8(-128));
            _mm256_maddubs_epi16(_mm256_abs_epi8(signed), _mm256_sign_epi8(activations, signed))
        }
    }
}

/// The sum of all lanes.
///
/// # Safety
///
/// The processor has AVX.
#[inline(always)]
pub(crate) unsafe fn reduce_add(floats: [__m256; 2]) -> f32 {
    // SAFETY: as above.
    unsafe {
        let eight = _mm256_add_ps(floats[0], floats[1]);
        let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
        let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_add_ps(two, _mm_shuffle_ps::<1>(two, two)))
    }
}

impl SimdF32 for [__m256; 2] {
    const MAX_VALUE_VECTORS: usize = 1;

    #[inline(always)]
    unsafe fn splat(number: f32) -> Self {
        // SAFETY: as above.
        unsafe { [_mm256_set1_ps(number); 2] }
    }

    #[inline(always)]
    unsafe fn load(ptr: *const f32) -> Self {
        // SAFETY: as above.
        unsafe { [_mm256_loadu_ps(ptr), _mm256_loadu_ps(ptr.add(8))] }
    }

    #[inline(always)]
    unsafe fn load_f16(ptr: *const u8) -> Self {
        let ptr = ptr.cast::<__m128i>();
        // SAFETY: as above.
        unsafe { [_mm256_cvtph_ps(_mm_loadu_si128(ptr)), _mm256_cvtph_ps(_mm_loadu_si128(ptr.add(1)))] }
    }

    #[inline(always)]
    unsafe fn store(self, ptr: *mut f32) {
        // SAFETY: as above.
        unsafe {
            _mm256_storeu_ps(ptr, self[0]);
            _mm256_storeu_ps(ptr.add(8), self[1]);
        }
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: as above.
        zip2(self, other, |left, right| unsafe { _mm256_sub_ps(left, right) })
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        // SAFETY: as above.
        zip2(self, other, |left, right| unsafe { _mm256_mul_ps(left, right) })
    }

    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, sum: Self) -> Self {
        // SAFETY: as above.
        map2([0, 1], |half: usize| unsafe { _mm256_fmadd_ps(self[half], factor[half], sum[half]) })
    }

    #[inline(always)]
    unsafe fn neg_mul_add(self, factor: Self, sum: Self) -> Self {
        // SAFETY: as above.
        map2([0, 1], |half: usize| unsafe { _mm256_fnmadd_ps(self[half], factor[half], sum[half]) })
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        // SAFETY: as above.
        zip2(self, other, |left, right| unsafe { _mm256_max_ps(left, right) })
    }

    #[inline(always)]
    unsafe fn round(self) -> Self {
        // SAFETY: as above.
        map2(self, |floats| unsafe { _mm256_round_ps::<0x08>(floats) })
    }

    #[inline(always)]
    unsafe fn scalef(self, exponent: Self) -> Self {
        // SAFETY: as above.
        zip2(self, exponent, |floats, exponent| unsafe {
            // In two steps, of which the first is exact. In one step, the factor could be subnormal.
            let exponent = _mm256_cvtps_epi32(exponent);
            let first_step = _mm256_srav_epi32(exponent, _mm256_set1_epi32(1));
            let power = |exponent| {
                let bits = _mm256_slli_epi32::<23>(_mm256_add_epi32(exponent, _mm256_set1_epi32(127)));
                _mm256_castsi256_ps(bits)
            };
            let second_step = _mm256_sub_epi32(exponent, first_step);
            _mm256_mul_ps(_mm256_mul_ps(floats, power(first_step)), power(second_step))
        })
    }

    #[inline(always)]
    unsafe fn blend_first(self, count: usize, other: Self) -> Self {
        // The mask of the first `count` lanes begins `LANES - count` elements after the start.
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
        // SAFETY: as above; `count` is at most 16, so sixteen elements follow.
        map2([0, 1], |half: usize| unsafe {
            let mask = _mm256_castsi256_ps(_mm256_loadu_si256(mask.add(8 * half).cast()));
            _mm256_blendv_ps(other[half], self[half], mask)
        })
    }

    #[inline(always)]
    unsafe fn reduce_add(self) -> f32 {
        // SAFETY: as above.
        unsafe { reduce_add(self) }
    }

    #[inline(always)]
    unsafe fn reduce_max(self) -> f32 {
        // SAFETY: as above.
        unsafe {
            let eight = _mm256_max_ps(self[0], self[1]);
            let four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ps(two, _mm_shuffle_ps::<1>(two, two)))
        }
    }

    #[inline(always)]
    unsafe fn transpose_reduce_add(vectors: &[Self; LANES]) -> Self {
        // SAFETY: as above.
        unsafe {
            let sum_two = |half: usize, first: usize| {
                let (a, b) = (vectors[first][half], vectors[first + 1][half]);
                _mm256_add_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b))
            };
            let sum_four = |half: usize, first: usize| {
                let a = _mm256_castps_pd(sum_two(half, first));
                let b = _mm256_castps_pd(sum_two(half, first + 2));
                _mm256_add_ps(
                    _mm256_castpd_ps(_mm256_unpacklo_pd(a, b)),
                    _mm256_castpd_ps(_mm256_unpackhi_pd(a, b)),
                )
            };
            // The sums of eight vectors over one half of their lanes.
            let sum_eight = |half: usize, first: usize| {
                let (a, b) = (sum_four(half, first), sum_four(half, first + 4));
                _mm256_add_ps(_mm256_permute2f128_ps::<0x20>(a, b), _mm256_permute2f128_ps::<0x31>(a, b))
            };
            map2([0, 1], |half: usize| _mm256_add_ps(sum_eight(0, 8 * half), sum_eight(1, 8 * half)))
        }
    }
}
