//! Vectors of AVX-512 (F, BW) with integer dot products (VNNI).

use std::arch::x86_64::{
    __m512, __m512i, __mmask16, _mm_loadu_si128, _mm256_loadu_si256, _mm512_add_ps, _mm512_and_si512,
    _mm512_broadcast_i32x4, _mm512_castpd_ps, _mm512_castps_pd, _mm512_castps512_ps256,
    _mm512_castsi128_si512, _mm512_cmpneq_epi16_mask, _mm512_cvtepi32_epi16, _mm512_cvtepi32_ps,
    _mm512_cvtph_ps, _mm512_dpbusd_epi32, _mm512_fmadd_ps, _mm512_fnmadd_ps, _mm512_inserti32x4,
    _mm512_loadu_ps, _mm512_loadu_si512, _mm512_mask_blend_ps, _mm512_max_ps, _mm512_mul_ps,
    _mm512_mullo_epi32, _mm512_or_si512, _mm512_reduce_max_ps, _mm512_roundscale_ps, _mm512_scalef_ps,
    _mm512_set1_epi16, _mm512_set1_epi32, _mm512_set1_ps, _mm512_shuffle_epi8, _mm512_shuffle_f32x4,
    _mm512_sllv_epi32, _mm512_srav_epi32, _mm512_srlv_epi32, _mm512_storeu_ps, _mm512_sub_ps,
    _mm512_unpackhi_epi32, _mm512_unpackhi_epi64, _mm512_unpackhi_pd, _mm512_unpackhi_ps,
    _mm512_unpacklo_epi32, _mm512_unpacklo_epi64, _mm512_unpacklo_pd, _mm512_unpacklo_ps, _mm512_xor_si512,
};

use crate::llama::kernels::avx2;
use crate::llama::kernels::simd::{LANES, QuantRange, SimdF32, SimdI32};

// SAFETY of all blocks in this file: the processor has the instructions of the traits, and the pointers
// satisfy the traits' descriptions.

impl SimdI32 for __m512i {
    type F32 = __m512;

    const MAX_COLUMNS: usize = 8;
    const MAX_FUSED_COLUMNS: usize = 2;

    #[inline(always)]
    unsafe fn load_transposed16(ptr: *const u8, stride: usize) -> [Self; 4] {
        // SAFETY: as above.
        unsafe {
            let row = |row: usize| _mm_loadu_si128(ptr.add(row * stride).cast());
            // Rows `first`, `first + 4`, ..., one per quarter of the vector.
            let rows = |first: usize| {
                let rows = _mm512_castsi128_si512(row(first));
                let rows = _mm512_inserti32x4::<1>(rows, row(first + 4));
                let rows = _mm512_inserti32x4::<2>(rows, row(first + 8));
                _mm512_inserti32x4::<3>(rows, row(first + 12))
            };
            // Transposes four by four words in each quarter.
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

    #[inline(always)]
    unsafe fn splat(number: i32) -> Self {
        // SAFETY: as above.
        unsafe { _mm512_set1_epi32(number) }
    }

    #[inline(always)]
    unsafe fn and(self, other: Self) -> Self {
        // SAFETY: as above.
        unsafe { _mm512_and_si512(self, other) }
    }

    #[inline(always)]
    unsafe fn or(self, other: Self) -> Self {
        // SAFETY: as above.
        unsafe { _mm512_or_si512(self, other) }
    }

    #[inline(always)]
    unsafe fn xor(self, other: Self) -> Self {
        // SAFETY: as above.
        unsafe { _mm512_xor_si512(self, other) }
    }

    #[inline(always)]
    unsafe fn shl(self, bits: usize) -> Self {
        // SAFETY: as above.
        unsafe { _mm512_sllv_epi32(self, _mm512_set1_epi32(bits as i32)) }
    }

    #[inline(always)]
    unsafe fn shr(self, bits: usize) -> Self {
        // SAFETY: as above.
        unsafe { _mm512_srlv_epi32(self, _mm512_set1_epi32(bits as i32)) }
    }

    #[inline(always)]
    unsafe fn sra(self, bits: usize) -> Self {
        // SAFETY: as above.
        unsafe { _mm512_srav_epi32(self, _mm512_set1_epi32(bits as i32)) }
    }

    #[inline(always)]
    unsafe fn mullo(self, other: Self) -> Self {
        // SAFETY: as above.
        unsafe { _mm512_mullo_epi32(self, other) }
    }

    #[inline(always)]
    unsafe fn shuffle(self, table: &[u8; 16]) -> Self {
        // SAFETY: as above.
        unsafe {
            let table = _mm512_broadcast_i32x4(_mm_loadu_si128(table.as_ptr().cast()));
            _mm512_shuffle_epi8(table, self)
        }
    }

    #[inline(always)]
    unsafe fn to_f32(self) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_cvtepi32_ps(self) }
    }

    #[inline(always)]
    unsafe fn low_f16_to_f32(self) -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_cvtph_ps(_mm512_cvtepi32_epi16(self)) }
    }

    #[inline(always)]
    unsafe fn cmp_ne_u16(numbers: &[u16; 32], number: u16) -> u32 {
        // SAFETY: as above.
        unsafe {
            let numbers = _mm512_loadu_si512(numbers.as_ptr().cast());
            _mm512_cmpneq_epi16_mask(numbers, _mm512_set1_epi16(number.cast_signed()))
        }
    }

    #[inline(always)]
    unsafe fn dot_u8i8<F: QuantRange, const G: usize, const N: usize>(
        quants: &[Self; G],
        columns: [*const i8; N],
        zero_point_terms: [i32; N],
    ) -> [Self; N] {
        // SAFETY: as above.
        unsafe {
            let mut dots =
                zero_point_terms.map(|term| _mm512_set1_epi32(if F::ZERO_POINT == 0 { 0 } else { term }));
            for (group, quants) in quants.iter().enumerate() {
                for (dots, column) in dots.iter_mut().zip(columns) {
                    let four = column.add(4 * group).cast::<i32>().read_unaligned();
                    *dots = _mm512_dpbusd_epi32(*dots, *quants, _mm512_set1_epi32(four));
                }
            }
            dots
        }
    }
}

impl SimdF32 for __m512 {
    const MAX_VALUE_VECTORS: usize = 4;

    #[inline(always)]
    unsafe fn splat(number: f32) -> Self {
        // SAFETY: as above.
        unsafe { _mm512_set1_ps(number) }
    }

    #[inline(always)]
    unsafe fn load(ptr: *const f32) -> Self {
        // SAFETY: as above.
        unsafe { _mm512_loadu_ps(ptr) }
    }

    #[inline(always)]
    unsafe fn load_f16(ptr: *const u8) -> Self {
        // SAFETY: as above.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(ptr.cast())) }
    }

    #[inline(always)]
    unsafe fn store(self, ptr: *mut f32) {
        // SAFETY: as above.
        unsafe { _mm512_storeu_ps(ptr, self) }
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: as above.
        unsafe { _mm512_sub_ps(self, other) }
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        // SAFETY: as above.
        unsafe { _mm512_mul_ps(self, other) }
    }

    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, sum: Self) -> Self {
        // SAFETY: as above.
        unsafe { _mm512_fmadd_ps(self, factor, sum) }
    }

    #[inline(always)]
    unsafe fn neg_mul_add(self, factor: Self, sum: Self) -> Self {
        // SAFETY: as above.
        unsafe { _mm512_fnmadd_ps(self, factor, sum) }
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        // SAFETY: as above.
        unsafe { _mm512_max_ps(self, other) }
    }

    #[inline(always)]
    unsafe fn round(self) -> Self {
        // SAFETY: as above.
        unsafe { _mm512_roundscale_ps::<0x08>(self) }
    }

    #[inline(always)]
    unsafe fn scalef(self, exponent: Self) -> Self {
        // SAFETY: as above.
        unsafe { _mm512_scalef_ps(self, exponent) }
    }

    #[inline(always)]
    unsafe fn blend_first(self, count: usize, other: Self) -> Self {
        let mask = ((1_u32 << count) - 1) as __mmask16;
        // SAFETY: as above.
        unsafe { _mm512_mask_blend_ps(mask, other, self) }
    }

    #[inline(always)]
    unsafe fn reduce_add(self) -> f32 {
        // SAFETY: as above; a processor with AVX-512 has AVX2.
        unsafe {
            let upper = _mm512_shuffle_f32x4::<0b1110>(self, self);
            avx2::reduce_add([_mm512_castps512_ps256(self), _mm512_castps512_ps256(upper)])
        }
    }

    #[inline(always)]
    unsafe fn reduce_max(self) -> f32 {
        // SAFETY: as above.
        unsafe { _mm512_reduce_max_ps(self) }
    }

    #[inline(always)]
    unsafe fn transpose_reduce_add(vectors: &[Self; LANES]) -> Self {
        // SAFETY: as above.
        unsafe {
            let two = |a, b| _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
            let four = |first: usize| {
                let a = _mm512_castps_pd(two(vectors[first], vectors[first + 1]));
                let b = _mm512_castps_pd(two(vectors[first + 2], vectors[first + 3]));
                _mm512_add_ps(
                    _mm512_castpd_ps(_mm512_unpacklo_pd(a, b)),
                    _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)),
                )
            };
            let quarters =
                |a, b| _mm512_add_ps(_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0xdd>(a, b));
            quarters(quarters(four(0), four(4)), quarters(four(8), four(12)))
        }
    }
}
