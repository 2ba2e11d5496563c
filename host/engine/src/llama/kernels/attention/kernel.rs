//! Attention of a few query rows over the cells of one KV head.
//!
//! Online softmax in one pass (Milakov and Gimelshein, arXiv 1805.02867), in chunks of sixteen cells from a
//! row's first cell. So the order of a row's additions depends neither on the places of its cells nor on the
//! other rows in the call. This property requires that later positions lie further back in the cache. Each
//! sequence therefore has its own cache, which is cut only at its end.

use std::arch::x86_64::{__m256i, __m512i};
use std::array::from_fn;

use crate::llama::kernels::simd::{InstructionSet, LANES, SimdF32, SimdI32};

/// The maximum size of a head's keys and values.
pub(crate) const MAX_HEAD_SIZE: usize = 256;

/// Keys and values of one KV head, in half precision.
pub(crate) struct Head {
    pub keys: *const u8,
    pub values: *const u8,
    /// Bytes between consecutive cells.
    pub key_stride: usize,
    pub value_stride: usize,
    /// Numbers per key and per value: multiples of [`LANES`], at most [`MAX_HEAD_SIZE`].
    pub key_size: usize,
    pub value_size: usize,
    /// The factor of the product of a query and a key.
    pub scale: f32,
}

/// A query row, which sees the first `cells` cells.
#[derive(Clone, Copy)]
pub(crate) struct QueryRow {
    pub query: *const f32,
    pub out: *mut f32,
    pub cells: usize,
}

/// Lists the cells that a row of the half-precision mask lets through.
///
/// # Safety
///
/// The processor supports `isa`.
pub(crate) unsafe fn visible_cells(isa: InstructionSet, mask: &[u16], cells: &mut Vec<u32>) {
    // SAFETY: as the caller promises.
    unsafe {
        match isa {
            InstructionSet::Avx2 => visible_cells_avx2(mask, cells),
            InstructionSet::Avx512 => visible_cells_avx512(mask, cells),
        }
    }
}

/// Computes `R` rows. Each row sees a prefix of `cells`.
///
/// # Safety
///
/// The cells belong to the head. Each query has the size of a key, and each `out` the size of a value. The
/// processor supports `isa`.
pub(crate) unsafe fn attend<const R: usize>(
    isa: InstructionSet,
    head: &Head,
    rows: &[QueryRow; R],
    cells: &[u32],
) {
    // SAFETY: as the caller promises.
    unsafe {
        match isa {
            InstructionSet::Avx2 => attend_avx2(head, rows, cells),
            InstructionSet::Avx512 => attend_avx512(head, rows, cells),
        }
    }
}

/// # Safety
///
/// The processor has AVX2.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn visible_cells_avx2(mask: &[u16], cells: &mut Vec<u32>) {
    // SAFETY: as the caller promises.
    unsafe { collect_visible::<[__m256i; 2]>(mask, cells) };
}

/// # Safety
///
/// The processor has AVX-512 F and BW.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn visible_cells_avx512(mask: &[u16], cells: &mut Vec<u32>) {
    // SAFETY: as the caller promises.
    unsafe { collect_visible::<__m512i>(mask, cells) };
}

/// # Safety
///
/// As for [`attend`]; the processor has AVX2, FMA and F16C.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn attend_avx2<const R: usize>(head: &Head, rows: &[QueryRow; R], cells: &[u32]) {
    // SAFETY: as the caller promises.
    unsafe { softmax::<[__m256i; 2], R>(head, rows, cells) };
}

/// # Safety
///
/// As for [`attend`]; the processor has AVX-512 F and BW.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn attend_avx512<const R: usize>(head: &Head, rows: &[QueryRow; R], cells: &[u32]) {
    // SAFETY: as the caller promises.
    unsafe { softmax::<__m512i, R>(head, rows, cells) };
}

/// Implements [`visible_cells`].
#[inline(always)]
unsafe fn collect_visible<W: SimdI32>(mask: &[u16], cells: &mut Vec<u32>) {
    const MINUS_INFINITY_F16: u16 = 0xFC00;
    cells.clear();
    let (chunks, rest) = mask.as_chunks::<32>();
    let mut first = 0;
    for chunk in chunks {
        // SAFETY: the processor supports `W`.
        let mut visible = unsafe { W::cmp_ne_u16(chunk, MINUS_INFINITY_F16) };
        if visible == u32::MAX {
            cells.extend(first..first + 32);
            visible = 0;
        }
        while visible != 0 {
            cells.push(first + visible.trailing_zeros());
            visible &= visible - 1;
        }
        first += 32;
    }
    cells.extend((first..).zip(rest).filter(|(_, mask)| **mask != MINUS_INFINITY_F16).map(|(cell, _)| cell));
}

/// The state of a row after some of its cells: the maximum score, and sums relative to it.
#[derive(Clone, Copy)]
struct OnlineSoftmax<V> {
    max_score: f32,
    weight_sum: f32,
    value_sums: [V; MAX_HEAD_SIZE / LANES],
}

impl<V: SimdF32> OnlineSoftmax<V> {
    /// Adds sixteen scores, of which the row sees the first `visible`, and returns their weights. Rescales
    /// the earlier sums to the new maximum.
    #[inline(always)]
    unsafe fn add_scores(&mut self, scores: V, visible: usize, vectors: usize) -> [f32; LANES] {
        // SAFETY: the processor supports `V`.
        unsafe {
            let scores = scores.blend_first(visible, V::splat(f32::NEG_INFINITY));
            let max_score = self.max_score.max(scores.reduce_max());
            let mut lanes = [0.0; LANES];
            let mut rescale = 1.0;
            if max_score != self.max_score {
                exp(V::splat(self.max_score - max_score)).store(lanes.as_mut_ptr());
                rescale = lanes[0];
            }
            let weights = exp(scores.sub(V::splat(max_score))).blend_first(visible, V::splat(0.0));
            self.max_score = max_score;
            self.weight_sum = self.weight_sum.mul_add(rescale, weights.reduce_add());
            for sum in &mut self.value_sums[..vectors] {
                *sum = sum.mul(V::splat(rescale));
            }
            weights.store(lanes.as_mut_ptr());
            lanes
        }
    }
}

/// Implements [`attend`].
#[inline(always)]
unsafe fn softmax<W: SimdI32, const R: usize>(head: &Head, rows: &[QueryRow; R], cells: &[u32]) {
    // SAFETY: as the caller promises; padding repeats the last cell.
    unsafe {
        let zero = [W::F32::splat(0.0); MAX_HEAD_SIZE / LANES];
        let mut queries = [zero; R];
        for (query, row) in queries.iter_mut().zip(rows) {
            for (index, vector) in query[..head.key_size / LANES].iter_mut().enumerate() {
                *vector = W::F32::load(row.query.add(index * LANES)).mul(W::F32::splat(head.scale));
            }
        }
        let mut running =
            [OnlineSoftmax { max_score: f32::NEG_INFINITY, weight_sum: 0.0, value_sums: zero }; R];
        let vectors = head.value_size / LANES;
        for (index, chunk) in cells.chunks(LANES).enumerate() {
            let chunk: [usize; LANES] = from_fn(|cell| chunk[cell.min(chunk.len() - 1)] as usize);
            let scores = scores(head, &queries, &chunk);
            let weights = from_fn(|row| {
                let visible = rows[row].cells.saturating_sub(index * LANES).min(LANES);
                running[row].add_scores(scores[row], visible, vectors)
            });
            let mut from = 0;
            while from < vectors {
                from += match (vectors - from).min(W::F32::MAX_VALUE_VECTORS) {
                    4.. => add_values::<_, R, 4>(head, &chunk, &weights, &mut running, from),
                    _ => add_values::<_, R, 1>(head, &chunk, &weights, &mut running, from),
                };
            }
        }
        for (row, running) in rows.iter().zip(running) {
            let inverse =
                W::F32::splat(if running.weight_sum > 0.0 { 1.0 / running.weight_sum } else { 0.0 });
            for (index, sum) in running.value_sums[..vectors].iter().enumerate() {
                sum.mul(inverse).store(row.out.add(index * LANES));
            }
        }
    }
}

/// The products of each query and sixteen keys.
#[inline(always)]
unsafe fn scores<V: SimdF32, const R: usize>(
    head: &Head,
    queries: &[[V; MAX_HEAD_SIZE / LANES]; R],
    cells: &[usize; LANES],
) -> [V; R] {
    // SAFETY: as the caller promises.
    unsafe {
        let mut products = [[V::splat(0.0); LANES]; R];
        for (index, cell) in cells.iter().enumerate() {
            let key = head.keys.add(cell * head.key_stride);
            let mut sums = [V::splat(0.0); R];
            for vector in 0..head.key_size / LANES {
                let key = V::load_f16(key.add(vector * LANES * 2));
                for (sum, query) in sums.iter_mut().zip(queries) {
                    *sum = key.mul_add(query[vector], *sum);
                }
            }
            for (row, sum) in sums.into_iter().enumerate() {
                products[row][index] = sum;
            }
        }
        products.map(|products| V::transpose_reduce_add(&products))
    }
}

/// Adds `P` vectors of sixteen cells' weighted values to the sums, from vector `from` on. Returns `P`.
#[inline(always)]
unsafe fn add_values<V: SimdF32, const R: usize, const P: usize>(
    head: &Head,
    cells: &[usize; LANES],
    weights: &[[f32; LANES]; R],
    running: &mut [OnlineSoftmax<V>; R],
    from: usize,
) -> usize {
    // SAFETY: as the caller promises.
    unsafe {
        let mut sums: [[V; P]; R] = from_fn(|row| from_fn(|vector| running[row].value_sums[from + vector]));
        for (index, cell) in cells.iter().enumerate() {
            let value = head.values.add(cell * head.value_stride);
            let vectors: [V; P] = from_fn(|vector| V::load_f16(value.add((from + vector) * LANES * 2)));
            for (sums, weights) in sums.iter_mut().zip(weights) {
                // A hidden value may be NaN or infinite, and its product with zero would be NaN.
                if weights[index] != 0.0 {
                    let weight = V::splat(weights[index]);
                    for (sum, vector) in sums.iter_mut().zip(vectors) {
                        *sum = vector.mul_add(weight, *sum);
                    }
                }
            }
        }
        for (sums, running) in sums.iter().zip(running) {
            running.value_sums[from..from + P].copy_from_slice(sums);
        }
        P
    }
}

/// e to the power of numbers that are at most zero.
#[inline(always)]
unsafe fn exp<V: SimdF32>(exponents: V) -> V {
    // SAFETY: the processor supports `V`.
    unsafe {
        // Below -104 the result is 0 in single precision. `max` returns its second argument if one is NaN.
        let exponents = V::splat(-104.0).max(exponents);
        let quotient = exponents.mul(V::splat(std::f32::consts::LOG2_E)).round();
        // ln 2 in two parts (Cody and Waite), so that the remainder is exact.
        let remainder = quotient.neg_mul_add(V::splat(0.693_359_4), exponents);
        let remainder = quotient.neg_mul_add(V::splat(-2.121_944_4e-4), remainder);
        let mut power = V::splat(1.0 / 720.0);
        for factor in [1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
            power = power.mul_add(remainder, V::splat(factor));
        }
        power.scalef(quotient)
    }
}
