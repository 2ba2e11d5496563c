//! The kernels against ggml's own unpacking, and against themselves.

use std::ffi::c_void;
use std::ptr;

use llama_cpp_sys_2 as sys;

use crate::llama::kernels::activations::{BLOCK, Block};
use crate::llama::kernels::attend::{Head, Row, attend, visible};
use crate::llama::kernels::dot::ROWS;
use crate::llama::kernels::panel::{Kind, Panel};
use crate::llama::kernels::vectors::Processor;

/// Numbers between -1 and 1, some of them large, as activations are.
fn numbers(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / 8_388_608.0 - 1.0
    };
    (0..count).map(|index| next() * if index % 61 == 0 { 9.0 } else { 1.0 }).collect()
}

/// Sixteen rows, quantized by ggml.
struct Weights {
    bytes: Vec<u8>,
    stride: usize,
    width: usize,
}

impl Weights {
    fn new(kind: sys::ggml_type, width: usize) -> Self {
        // SAFETY: a pure function.
        let stride = unsafe { sys::ggml_row_size(kind, width as i64) };
        let mut weights = Self { bytes: vec![0; ROWS * stride], stride, width };
        weights.quantize(kind, &numbers(ROWS * width, 7));
        weights
    }

    fn quantize(&mut self, kind: sys::ggml_type, values: &[f32]) {
        let (out, rows, width) = (self.bytes.as_mut_ptr().cast::<c_void>(), ROWS as i64, self.width as i64);
        // SAFETY: the buffer has the size that ggml says, and there is no importance matrix.
        unsafe { sys::ggml_quantize_chunk(kind, values.as_ptr(), out, 0, rows, width, ptr::null()) };
    }

    /// As ggml unpacks them.
    fn row(&self, kind: sys::ggml_type, row: usize) -> Vec<f32> {
        let mut values = vec![0.0; self.width];
        // SAFETY: both have the size of one row.
        unsafe {
            let from = self.bytes.as_ptr().add(row * self.stride).cast::<c_void>();
            if let Some(unpack) = (*sys::ggml_get_type_traits(kind)).to_float {
                unpack(from, values.as_mut_ptr(), self.width as i64);
            }
        }
        values
    }

    /// All rows times these columns.
    fn times(&self, processor: Processor, kind: Kind, activations: &[Block]) -> Vec<[f32; ROWS]> {
        let blocks = self.width / BLOCK;
        let mut out = vec![[0.0; ROWS]; activations.len() / blocks];
        let panel = Panel {
            weights: self.bytes.as_ptr(),
            stride: self.stride,
            next: self.bytes.as_ptr(),
            blocks,
            activations,
            out: out.as_mut_ptr().cast(),
            apart: ROWS,
        };
        // SAFETY: all sixteen rows are there, and each column has its place.
        unsafe { kind.multiply(processor, &panel) };
        out
    }
}

const TYPES: [sys::ggml_type; 11] = [
    sys::GGML_TYPE_Q4_0,
    sys::GGML_TYPE_Q4_1,
    sys::GGML_TYPE_Q5_0,
    sys::GGML_TYPE_Q5_1,
    sys::GGML_TYPE_Q8_0,
    sys::GGML_TYPE_IQ4_NL,
    sys::GGML_TYPE_Q2_K,
    sys::GGML_TYPE_Q3_K,
    sys::GGML_TYPE_Q4_K,
    sys::GGML_TYPE_Q5_K,
    sys::GGML_TYPE_Q6_K,
];

/// Each type, and ours of it.
fn kinds() -> Vec<(sys::ggml_type, Kind)> {
    let known: Vec<_> = TYPES.into_iter().filter_map(|kind| Some((kind, Kind::of(kind)?))).collect();
    assert_eq!(known.len(), TYPES.len());
    known
}

/// Each type, with weights and quantized columns.
fn each(columns: usize, mut test: impl FnMut(sys::ggml_type, Kind, &Weights, &[Block])) {
    for (kind, ours) in kinds() {
        // Units of eight blocks, and what is left after them.
        let width = if ours.weights() == BLOCK { 18 * BLOCK } else { 5 * ours.weights() };
        let values = numbers(columns * width, 3);
        let blocks: Vec<Block> = values.as_chunks().0.iter().map(|block| ours.quantize(block)).collect();
        test(kind, ours, &Weights::new(kind, width), &blocks);
    }
}

fn bits<const N: usize>(rows: &[[f32; N]]) -> Vec<[u32; N]> {
    rows.iter().map(|row| row.map(f32::to_bits)).collect()
}

#[test]
fn products_are_those_of_what_ggml_unpacks() {
    each(3, |kind, ours, weights, activations| {
        let blocks = weights.width / BLOCK;
        for processor in Processor::all() {
            let products = weights.times(processor, ours, activations);
            for row in 0..ROWS {
                let values = weights.row(kind, row);
                for (column, products) in products.iter().enumerate() {
                    let column = &activations[column * blocks..(column + 1) * blocks];
                    let (sum, size) = product(column, &values);
                    let error = (f64::from(products[row]) - sum).abs();
                    let got = products[row];
                    assert!(
                        error <= 1e-5 * size,
                        "{processor:?}, type {kind}, row {row}: {got} and not {sum}"
                    );
                }
            }
        }
    });
}

/// The sum of a row's terms, and that of their sizes.
fn product(column: &[Block], weights: &[f32]) -> (f64, f64) {
    let terms = column.iter().zip(weights.as_chunks::<BLOCK>().0).flat_map(|(block, weights)| {
        let quants = block.quants.iter().zip(weights);
        quants.map(|(quant, weight)| f64::from(block.scale) * f64::from(*quant) * f64::from(*weight))
    });
    terms.fold((0.0, 0.0), |(sum, size), term| (sum + term, size + term.abs()))
}

#[test]
fn many_columns_give_the_bits_of_one_on_all_processors() {
    let mut first: Vec<(sys::ggml_type, Vec<[u32; ROWS]>)> = Vec::new();
    for processor in Processor::all() {
        let mut all = Vec::new();
        each(29, |kind, ours, weights, activations| {
            let blocks = weights.width / BLOCK;
            let one_by_one = activations.chunks(blocks);
            let single: Vec<_> =
                one_by_one.flat_map(|one| bits(&weights.times(processor, ours, one))).collect();
            for columns in [2, 3, 5, 8, 9, 16, 29] {
                let together = bits(&weights.times(processor, ours, &activations[..columns * blocks]));
                assert_eq!(together, single[..columns], "{processor:?}, type {kind}, {columns} columns");
            }
            all.push((kind, single));
        });
        assert!(first.is_empty() || first == all, "{processor:?} gives other bits");
        first = all;
    }
}

#[test]
fn the_greatest_products_fit() {
    // All weights at one end of their range, all activations at the other.
    for (kind, ours) in kinds() {
        let width = 2 * ours.weights();
        for sign in [1.0, -1.0] {
            let mut weights = Weights::new(kind, width);
            let values: Vec<f32> =
                (0..ROWS * width).map(|at| if at % 32 == 0 { sign } else { -sign }).collect();
            weights.quantize(kind, &values);
            let values = vec![1.0; width];
            let column: Vec<Block> = values.as_chunks().0.iter().map(|block| ours.quantize(block)).collect();
            for processor in Processor::all() {
                let products = weights.times(processor, ours, &column);
                let (sum, size) = product(&column, &weights.row(kind, 3));
                let error = (f64::from(products[0][3]) - sum).abs();
                assert!(error <= 1e-5 * size, "{processor:?}, type {kind}: {} and not {sum}", products[0][3]);
            }
        }
    }
}

#[test]
fn activations_are_rounded_to_the_nearest_quant() {
    let mut values = [0.0; BLOCK];
    (values[0], values[1], values[31]) = (-2.0, 1.0, 0.011);
    let block = Block::new(&values, 8);
    assert_eq!((block.quants[0], block.quants[1], block.quants[31]), (-127, 64, 1));
    assert_eq!((block.scale, block.start, block.starts), (2.0 / 127.0, 8 * 62, [8 * 63, -8]));
    assert_eq!(Block::new(&[0.0; BLOCK], 8).scale, 0.0);
    let odd = Block::new(&[f32::NAN; BLOCK], 8);
    assert!(odd.scale.is_nan(), "products of it are no numbers either");
}

/// A cache of one head, in half precision.
struct Cache {
    keys: Vec<u16>,
    values: Vec<u16>,
    size: usize,
}

impl Cache {
    fn new(cells: usize, size: usize) -> Self {
        let halves = |seed| {
            let numbers = numbers(cells * size, seed);
            let mut halves = vec![0_u16; numbers.len()];
            // SAFETY: both have that many.
            unsafe {
                sys::ggml_fp32_to_fp16_row(numbers.as_ptr(), halves.as_mut_ptr(), numbers.len() as i64)
            };
            halves
        };
        Self { keys: halves(11), values: halves(12), size }
    }

    fn numbers(halves: &[u16]) -> Vec<f64> {
        // SAFETY: a pure function.
        halves.iter().map(|half| f64::from(unsafe { sys::ggml_fp16_to_fp32(*half) })).collect()
    }

    /// `R` queries that see the beginnings of `cells`, of these lengths.
    fn attend<const R: usize>(
        &self,
        processor: Processor,
        queries: &[Vec<f32>],
        cells: &[u32],
        lengths: [usize; R],
    ) -> Vec<Vec<f32>> {
        let mut out = vec![vec![0.0; self.size]; R];
        let head = Head {
            keys: self.keys.as_ptr().cast(),
            values: self.values.as_ptr().cast(),
            key_stride: 2 * self.size,
            value_stride: 2 * self.size,
            key_size: self.size,
            value_size: self.size,
            scale: 0.125,
        };
        let rows = std::array::from_fn(|row| Row {
            query: queries[row].as_ptr(),
            out: out[row].as_mut_ptr(),
            cells: lengths[row],
        });
        // SAFETY: queries and results have the head's size, and the cells are its own.
        unsafe { attend::<R>(processor, &head, &rows, cells) };
        out
    }
}

#[test]
fn attention_is_the_softmax_of_what_is_seen() {
    let (cache, cells) = (Cache::new(90, 80), (3..70).step_by(2).collect::<Vec<u32>>());
    let query = vec![numbers(80, 5)];
    let (keys, values) = (Cache::numbers(&cache.keys), Cache::numbers(&cache.values));
    let score = |cell: u32| {
        let key = &keys[cell as usize * 80..][..80];
        0.125 * key.iter().zip(&query[0]).map(|(key, query)| key * f64::from(*query)).sum::<f64>()
    };
    let weights: Vec<f64> = cells.iter().map(|cell| score(*cell).exp()).collect();
    for processor in Processor::all() {
        let out = cache.attend(processor, &query, &cells, [cells.len()]).remove(0);
        for (index, out) in out.into_iter().enumerate() {
            let terms = cells.iter().zip(&weights);
            let terms = terms.map(|(cell, weight)| weight * values[*cell as usize * 80 + index]);
            let wanted = terms.sum::<f64>() / weights.iter().sum::<f64>();
            let error = (f64::from(out) - wanted).abs();
            assert!(error < 1e-4, "{processor:?}, {index}: {out} and not {wanted}");
        }
    }
}

fn row_bits(rows: &[Vec<f32>]) -> Vec<Vec<u32>> {
    rows.iter().map(|row| row.iter().map(|one| one.to_bits()).collect()).collect()
}

#[test]
fn a_row_has_the_same_bits_beside_others_and_elsewhere() {
    let cells = (0..53).collect::<Vec<u32>>();
    let queries: Vec<Vec<f32>> = (0..4).map(|seed| numbers(64, seed)).collect();
    // One of them has seen all but the last chunk, one a part of that.
    let lengths = [31, 32, 40, 53];
    let mut first = Vec::new();
    for processor in Processor::all() {
        let mut cache = Cache::new(120, 64);
        let together = row_bits(&cache.attend(processor, &queries, &cells, lengths));
        for row in 0..4 {
            let alone = cache.attend(processor, &queries[row..], &cells[..lengths[row]], [lengths[row]]);
            assert_eq!(row_bits(&alone)[0], together[row], "{processor:?}, row {row}");
        }
        // The same contents, in other cells.
        for copied in [&mut cache.keys, &mut cache.values] {
            copied.copy_within(0..53 * 64, 61 * 64);
        }
        let elsewhere: Vec<u32> = (61..114).collect();
        assert_eq!(row_bits(&cache.attend(processor, &queries, &elsewhere, lengths)), together);
        assert!(first.is_empty() || first == together, "{processor:?} gives other bits");
        first = together;
    }
}

#[test]
fn what_a_row_does_not_see_cannot_spoil_it() {
    let cells = (0..20).collect::<Vec<u32>>();
    let queries: Vec<Vec<f32>> = (0..2).map(|seed| numbers(64, seed)).collect();
    for processor in Processor::all() {
        let mut cache = Cache::new(20, 64);
        let good = cache.attend(processor, &queries, &cells, [18, 20]);
        // Infinite, in the half precision of the cache.
        cache.values[18 * 64..].fill(0x7C00);
        let spoiled = cache.attend(processor, &queries, &cells, [18, 20]);
        assert_eq!(spoiled[0], good[0]);
        assert!(spoiled[1].iter().all(|value| !value.is_finite()));
    }
}

#[test]
fn a_mask_lets_cells_through() {
    let wanted: Vec<u32> = (0..32).chain([40, 63, 64, 70, 99]).collect();
    let mut mask = [0xFC00_u16; 101];
    wanted.iter().for_each(|cell| mask[*cell as usize] = 0);
    for processor in Processor::all() {
        let mut cells = vec![7];
        // SAFETY: the processor was asked.
        unsafe { visible(processor, &mask, &mut cells) };
        assert_eq!(cells, wanted, "{processor:?}");
    }
}

#[test]
fn powers_of_two_reach_below_what_is_normal() {
    // A score far below the greatest one weighs as little as a float can say.
    let cells = [0, 1];
    for processor in Processor::all() {
        let mut cache = Cache::new(2, 16);
        cache.keys.fill(0);
        cache.keys[0] = 0x3C00;
        cache.values[..16].fill(0);
        cache.values[16..].fill(0x7BFF);
        for (distance, wanted) in [(95.0_f32, (-95.0_f64).exp()), (120.0, 0.0)] {
            let mut query = vec![0.0; 16];
            query[0] = 8.0 * distance;
            let out = cache.attend(processor, &[query], &cells, [2]).remove(0);
            let error = (f64::from(out[0]) / 65504.0 - wanted).abs();
            assert!(error < 2e-45, "{processor:?}: {} and not {wanted} of 65504", out[0]);
        }
    }
}
