//! Attention of a few rows over the cells of one head, with AVX-512.
//!
//! Softmax in one walk (Milakov and Gimelshein, arXiv 1805.02867), sixteen cells at a time, counted from a row's
//! first cell. So a row's floats meet in the same order wherever its cells lie in the cache, as long as later
//! positions lie further back (each sequence has a cache of its own, that is only cut at its end), and whichever
//! rows are computed beside it.

use std::arch::x86_64::{
    __m512, __mmask16, _mm256_loadu_si256, _mm512_add_ps, _mm512_castpd_ps, _mm512_castps_pd,
    _mm512_cmpneq_epi16_mask, _mm512_cvtph_ps, _mm512_cvtss_f32, _mm512_fmadd_ps, _mm512_fnmadd_ps,
    _mm512_loadu_ps, _mm512_loadu_si512, _mm512_mask_blend_ps, _mm512_maskz_mov_ps, _mm512_max_ps,
    _mm512_mul_ps, _mm512_reduce_add_ps, _mm512_reduce_max_ps, _mm512_roundscale_ps, _mm512_scalef_ps,
    _mm512_set1_epi16, _mm512_set1_ps, _mm512_setzero_ps, _mm512_shuffle_f32x4, _mm512_storeu_ps,
    _mm512_sub_ps, _mm512_unpackhi_pd, _mm512_unpackhi_ps, _mm512_unpacklo_pd, _mm512_unpacklo_ps,
};
use std::array::from_fn;

/// Values in a vector, and cells that are taken at once.
pub(super) const LANES: usize = 16;

/// The greatest size of a head's keys and values.
pub(super) const SIZE: usize = 256;

/// Keys and values of one head, in half precision.
pub(super) struct Head {
    pub keys: *const u8,
    pub values: *const u8,
    /// Bytes from a cell's to the next one's.
    pub key_stride: usize,
    pub value_stride: usize,
    /// Values in each; multiples of [`LANES`], [`SIZE`] at most.
    pub key_size: usize,
    pub value_size: usize,
}

/// A row: a query, and the first so many cells that it sees.
#[derive(Clone, Copy)]
pub(super) struct Row {
    pub query: *const f32,
    pub out: *mut f32,
    pub cells: usize,
}

/// The cells that a row of the mask, in half precision, lets through.
///
/// # Safety
///
/// The processor has AVX-512 F and BW.
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) unsafe fn visible(mask: &[u16], cells: &mut Vec<u32>) {
    // Minus infinity: the row does not see the cell.
    const UNSEEN: u16 = 0xFC00;
    cells.clear();
    let (chunks, rest) = mask.as_chunks::<32>();
    let mut first = 0;
    for chunk in chunks {
        // SAFETY: a chunk has the size of a vector.
        let chunk = unsafe { _mm512_loadu_si512(chunk.as_ptr().cast()) };
        let mut seen = _mm512_cmpneq_epi16_mask(chunk, _mm512_set1_epi16(UNSEEN.cast_signed()));
        if seen == u32::MAX {
            cells.extend(first..first + 32);
            seen = 0;
        }
        while seen != 0 {
            cells.push(first + seen.trailing_zeros());
            seen &= seen - 1;
        }
        first += 32;
    }
    cells.extend((first..).zip(rest).filter(|(_, mask)| **mask != UNSEEN).map(|(cell, _)| cell));
}

/// What a row has after some of its cells: the greatest score, and sums that are relative to it.
#[derive(Clone, Copy)]
struct Running {
    best: f32,
    total: f32,
    sums: [__m512; SIZE / LANES],
}

impl Running {
    /// The weights of sixteen cells, of which the row sees the first `seen`; what came before them is made
    /// relative to the new greatest score.
    #[inline(always)]
    unsafe fn weigh(&mut self, scores: __m512, seen: usize, parts: usize) -> [f32; LANES] {
        // SAFETY: the caller's processor has AVX-512.
        unsafe {
            let mask = ((1_u32 << seen) - 1) as __mmask16;
            let scores = _mm512_mask_blend_ps(mask, _mm512_set1_ps(f32::NEG_INFINITY), scores);
            let best = self.best.max(_mm512_reduce_max_ps(scores));
            let less =
                if best == self.best { 1.0 } else { _mm512_cvtss_f32(exp(_mm512_set1_ps(self.best - best))) };
            let weights = _mm512_maskz_mov_ps(mask, exp(_mm512_sub_ps(scores, _mm512_set1_ps(best))));
            self.best = best;
            self.total = self.total.mul_add(less, _mm512_reduce_add_ps(weights));
            for sum in &mut self.sums[..parts] {
                *sum = _mm512_mul_ps(*sum, _mm512_set1_ps(less));
            }
            let mut each = [0.0; LANES];
            _mm512_storeu_ps(each.as_mut_ptr(), weights);
            each
        }
    }
}

/// Computes `R` rows that see the beginnings of `cells`.
///
/// # Safety
///
/// The cells are the head's; each query has a key's size, each `out` a value's. The processor has AVX-512 F.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn attend<const R: usize>(head: &Head, scale: f32, rows: &[Row; R], cells: &[u32]) {
    // SAFETY: as the caller promises; padding repeats a cell.
    unsafe {
        let zero = [_mm512_setzero_ps(); SIZE / LANES];
        let mut queries = [zero; R];
        for (query, row) in queries.iter_mut().zip(rows) {
            for (index, part) in query[..head.key_size / LANES].iter_mut().enumerate() {
                *part = _mm512_mul_ps(_mm512_loadu_ps(row.query.add(index * LANES)), _mm512_set1_ps(scale));
            }
        }
        let mut running = [Running { best: f32::NEG_INFINITY, total: 0.0, sums: zero }; R];
        let parts = head.value_size / LANES;
        for (index, some) in cells.chunks(LANES).enumerate() {
            let some: [usize; LANES] = from_fn(|cell| some[cell.min(some.len() - 1)] as usize);
            let scores = scores(head, &queries, &some);
            let weights = from_fn(|row| {
                let seen = rows[row].cells.saturating_sub(index * LANES).min(LANES);
                running[row].weigh(scores[row], seen, parts)
            });
            let mut from = 0;
            while from < parts {
                from += match parts - from {
                    4.. => values::<R, 4>(head, &some, &weights, &mut running, from),
                    _ => values::<R, 1>(head, &some, &weights, &mut running, from),
                };
            }
        }
        for (row, running) in rows.iter().zip(running) {
            let part = _mm512_set1_ps(if running.total > 0.0 { 1.0 / running.total } else { 0.0 });
            for (index, sum) in running.sums[..parts].iter().enumerate() {
                _mm512_storeu_ps(row.out.add(index * LANES), _mm512_mul_ps(*sum, part));
            }
        }
    }
}

/// Each query times sixteen keys.
#[inline(always)]
unsafe fn scores<const R: usize>(
    head: &Head,
    queries: &[[__m512; SIZE / LANES]; R],
    cells: &[usize; LANES],
) -> [__m512; R] {
    // SAFETY: as the caller promises.
    unsafe {
        let mut products = [[_mm512_setzero_ps(); LANES]; R];
        for (index, cell) in cells.iter().enumerate() {
            let key = head.keys.add(cell * head.key_stride);
            let mut sums = [_mm512_setzero_ps(); R];
            for part in 0..head.key_size / LANES {
                let key = halves(key, part);
                for (sum, query) in sums.iter_mut().zip(queries) {
                    *sum = _mm512_fmadd_ps(key, query[part], *sum);
                }
            }
            for (row, sum) in sums.into_iter().enumerate() {
                products[row][index] = sum;
            }
        }
        products.map(|products| across(&products))
    }
}

/// Adds `W` parts of sixteen cells' values, weighted, to the sums from part `from` on; how many.
#[inline(always)]
unsafe fn values<const R: usize, const W: usize>(
    head: &Head,
    cells: &[usize; LANES],
    weights: &[[f32; LANES]; R],
    running: &mut [Running; R],
    from: usize,
) -> usize {
    // SAFETY: as the caller promises.
    unsafe {
        let mut sums: [[__m512; W]; R] = from_fn(|row| from_fn(|part| running[row].sums[from + part]));
        for (index, cell) in cells.iter().enumerate() {
            let value = head.values.add(cell * head.value_stride);
            let parts: [__m512; W] = from_fn(|part| halves(value, from + part));
            for (sums, weights) in sums.iter_mut().zip(weights) {
                // What a row does not see may be no number, and zero times that is none.
                if weights[index] != 0.0 {
                    let weight = _mm512_set1_ps(weights[index]);
                    for (sum, part) in sums.iter_mut().zip(parts) {
                        *sum = _mm512_fmadd_ps(part, weight, *sum);
                    }
                }
            }
        }
        for (sums, running) in sums.iter().zip(running) {
            running.sums[from..from + W].copy_from_slice(sums);
        }
        W
    }
}

/// Sixteen numbers in half precision.
#[inline(always)]
unsafe fn halves(at: *const u8, part: usize) -> __m512 {
    // SAFETY: the caller says that they are there, and that the processor has AVX-512.
    unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(at.add(part * LANES * 2).cast())) }
}

/// The sum of each vector, in the lane of its number: all are added up in the same order.
#[inline(always)]
unsafe fn across(vectors: &[__m512; LANES]) -> __m512 {
    // SAFETY: the caller's processor has AVX-512.
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

/// e to the power of numbers that are not above zero.
#[inline(always)]
unsafe fn exp(numbers: __m512) -> __m512 {
    // SAFETY: the caller's processor has AVX-512.
    unsafe {
        // Below this it is 0 in single precision. Of two, the second is the maximum where one is no number.
        let numbers = _mm512_max_ps(_mm512_set1_ps(-104.0), numbers);
        let whole = _mm512_mul_ps(numbers, _mm512_set1_ps(std::f32::consts::LOG2_E));
        let whole = _mm512_roundscale_ps::<0x08>(whole);
        // ln 2 in two parts (Cody and Waite), so that the rest is exact.
        let rest = _mm512_fnmadd_ps(whole, _mm512_set1_ps(0.693_359_4), numbers);
        let rest = _mm512_fnmadd_ps(whole, _mm512_set1_ps(-2.121_944_4e-4), rest);
        let mut power = _mm512_set1_ps(1.0 / 720.0);
        for factor in [1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
            power = _mm512_fmadd_ps(power, rest, _mm512_set1_ps(factor));
        }
        _mm512_scalef_ps(power, whole)
    }
}
