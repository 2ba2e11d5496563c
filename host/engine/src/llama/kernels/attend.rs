//! Attention of a few rows over the cells of one head.
//!
//! Softmax in one walk (Milakov and Gimelshein, arXiv 1805.02867), sixteen cells at a time, counted from a row's
//! first cell. So a row's floats meet in the same order wherever its cells lie in the cache, as long as later
//! positions lie further back (each sequence has a cache of its own, that is only cut at its end), and whichever
//! rows are computed beside it.

use std::arch::x86_64::{__m256i, __m512i};
use std::array::from_fn;

use crate::llama::kernels::vectors::{Floats, LANES, Processor, Words};

/// The greatest size of a head's keys and values.
pub(crate) const SIZE: usize = 256;

/// Keys and values of one head, in half precision.
pub(crate) struct Head {
    pub keys: *const u8,
    pub values: *const u8,
    /// Bytes from a cell's to the next one's.
    pub key_stride: usize,
    pub value_stride: usize,
    /// Values in each; multiples of [`LANES`], [`SIZE`] at most.
    pub key_size: usize,
    pub value_size: usize,
    /// What a query times a key is multiplied by.
    pub scale: f32,
}

/// A row: a query, and the first so many cells that it sees.
#[derive(Clone, Copy)]
pub(crate) struct Row {
    pub query: *const f32,
    pub out: *mut f32,
    pub cells: usize,
}

/// The cells that a row of the mask, in half precision, lets through.
///
/// # Safety
///
/// The processor is this one.
pub(crate) unsafe fn visible(processor: Processor, mask: &[u16], cells: &mut Vec<u32>) {
    // SAFETY: as the caller promises.
    unsafe {
        match processor {
            Processor::Avx2 => visible_avx2(mask, cells),
            Processor::Avx512 => visible_avx512(mask, cells),
        }
    }
}

/// Computes `R` rows that see the beginnings of `cells`.
///
/// # Safety
///
/// The cells are the head's; each query has a key's size, each `out` a value's. The processor is this one.
pub(crate) unsafe fn attend<const R: usize>(
    processor: Processor,
    head: &Head,
    rows: &[Row; R],
    cells: &[u32],
) {
    // SAFETY: as the caller promises.
    unsafe {
        match processor {
            Processor::Avx2 => attend_avx2(head, rows, cells),
            Processor::Avx512 => attend_avx512(head, rows, cells),
        }
    }
}

/// # Safety
///
/// The processor has AVX2.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn visible_avx2(mask: &[u16], cells: &mut Vec<u32>) {
    // SAFETY: as the caller promises.
    unsafe { find::<[__m256i; 2]>(mask, cells) };
}

/// # Safety
///
/// The processor has AVX-512 F and BW.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn visible_avx512(mask: &[u16], cells: &mut Vec<u32>) {
    // SAFETY: as the caller promises.
    unsafe { find::<__m512i>(mask, cells) };
}

/// # Safety
///
/// As for [`attend`]; the processor has AVX2, FMA and F16C.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn attend_avx2<const R: usize>(head: &Head, rows: &[Row; R], cells: &[u32]) {
    // SAFETY: as the caller promises.
    unsafe { softmax::<[__m256i; 2], R>(head, rows, cells) };
}

/// # Safety
///
/// As for [`attend`]; the processor has AVX-512 F and BW.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn attend_avx512<const R: usize>(head: &Head, rows: &[Row; R], cells: &[u32]) {
    // SAFETY: as the caller promises.
    unsafe { softmax::<__m512i, R>(head, rows, cells) };
}

/// See [`visible`].
#[inline(always)]
unsafe fn find<W: Words>(mask: &[u16], cells: &mut Vec<u32>) {
    // Minus infinity: the row does not see the cell.
    const UNSEEN: u16 = 0xFC00;
    cells.clear();
    let (chunks, rest) = mask.as_chunks::<32>();
    let mut first = 0;
    for chunk in chunks {
        // SAFETY: the caller's processor has such vectors.
        let mut seen = unsafe { W::unequal(chunk, UNSEEN) };
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
struct Running<V> {
    best: f32,
    total: f32,
    sums: [V; SIZE / LANES],
}

impl<V: Floats> Running<V> {
    /// The weights of sixteen cells, of which the row sees the first `seen`; what came before them is made
    /// relative to the new greatest score.
    #[inline(always)]
    unsafe fn weigh(&mut self, scores: V, seen: usize, parts: usize) -> [f32; LANES] {
        // SAFETY: the caller's processor has such vectors.
        unsafe {
            let scores = scores.first(seen, V::set(f32::NEG_INFINITY));
            let best = self.best.max(scores.greatest());
            let mut each = [0.0; LANES];
            let mut less = 1.0;
            if best != self.best {
                exp(V::set(self.best - best)).store(each.as_mut_ptr());
                less = each[0];
            }
            let weights = exp(scores.sub(V::set(best))).first(seen, V::set(0.0));
            self.best = best;
            self.total = self.total.mul_add(less, weights.sum());
            for sum in &mut self.sums[..parts] {
                *sum = sum.mul(V::set(less));
            }
            weights.store(each.as_mut_ptr());
            each
        }
    }
}

/// See [`attend`].
#[inline(always)]
unsafe fn softmax<W: Words, const R: usize>(head: &Head, rows: &[Row; R], cells: &[u32]) {
    // SAFETY: as the caller promises; padding repeats a cell.
    unsafe {
        let zero = [W::Floats::set(0.0); SIZE / LANES];
        let mut queries = [zero; R];
        for (query, row) in queries.iter_mut().zip(rows) {
            for (index, part) in query[..head.key_size / LANES].iter_mut().enumerate() {
                *part = W::Floats::load(row.query.add(index * LANES)).mul(W::Floats::set(head.scale));
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
                from += match (parts - from).min(W::Floats::PARTS) {
                    4.. => values::<_, R, 4>(head, &some, &weights, &mut running, from),
                    _ => values::<_, R, 1>(head, &some, &weights, &mut running, from),
                };
            }
        }
        for (row, running) in rows.iter().zip(running) {
            let part = W::Floats::set(if running.total > 0.0 { 1.0 / running.total } else { 0.0 });
            for (index, sum) in running.sums[..parts].iter().enumerate() {
                sum.mul(part).store(row.out.add(index * LANES));
            }
        }
    }
}

/// Each query times sixteen keys.
#[inline(always)]
unsafe fn scores<V: Floats, const R: usize>(
    head: &Head,
    queries: &[[V; SIZE / LANES]; R],
    cells: &[usize; LANES],
) -> [V; R] {
    // SAFETY: as the caller promises.
    unsafe {
        let mut products = [[V::set(0.0); LANES]; R];
        for (index, cell) in cells.iter().enumerate() {
            let key = head.keys.add(cell * head.key_stride);
            let mut sums = [V::set(0.0); R];
            for part in 0..head.key_size / LANES {
                let key = V::load_halves(key.add(part * LANES * 2));
                for (sum, query) in sums.iter_mut().zip(queries) {
                    *sum = key.mul_add(query[part], *sum);
                }
            }
            for (row, sum) in sums.into_iter().enumerate() {
                products[row][index] = sum;
            }
        }
        products.map(|products| V::across(&products))
    }
}

/// Adds `P` parts of sixteen cells' values, weighted, to the sums from part `from` on; how many.
#[inline(always)]
unsafe fn values<V: Floats, const R: usize, const P: usize>(
    head: &Head,
    cells: &[usize; LANES],
    weights: &[[f32; LANES]; R],
    running: &mut [Running<V>; R],
    from: usize,
) -> usize {
    // SAFETY: as the caller promises.
    unsafe {
        let mut sums: [[V; P]; R] = from_fn(|row| from_fn(|part| running[row].sums[from + part]));
        for (index, cell) in cells.iter().enumerate() {
            let value = head.values.add(cell * head.value_stride);
            let parts: [V; P] = from_fn(|part| V::load_halves(value.add((from + part) * LANES * 2)));
            for (sums, weights) in sums.iter_mut().zip(weights) {
                // What a row does not see may be no number, and zero times that is none.
                if weights[index] != 0.0 {
                    let weight = V::set(weights[index]);
                    for (sum, part) in sums.iter_mut().zip(parts) {
                        *sum = part.mul_add(weight, *sum);
                    }
                }
            }
        }
        for (sums, running) in sums.iter().zip(running) {
            running.sums[from..from + P].copy_from_slice(sums);
        }
        P
    }
}

/// e to the power of numbers that are not above zero.
#[inline(always)]
unsafe fn exp<V: Floats>(numbers: V) -> V {
    // SAFETY: the caller's processor has such vectors.
    unsafe {
        // Below this it is 0 in single precision. Of two, the second is the maximum where one is no number.
        let numbers = V::set(-104.0).max(numbers);
        let whole = numbers.mul(V::set(std::f32::consts::LOG2_E)).round();
        // ln 2 in two parts (Cody and Waite), so that the rest is exact.
        let rest = whole.mul_sub_from(V::set(0.693_359_4), numbers);
        let rest = whole.mul_sub_from(V::set(-2.121_944_4e-4), rest);
        let mut power = V::set(1.0 / 720.0);
        for factor in [1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
            power = power.mul_add(rest, V::set(factor));
        }
        power.scale(whole)
    }
}
