//! The kernels against ggml's own unpacking, and against themselves.

use std::ffi::c_void;
use std::ptr;

use llama_cpp_sys_2 as sys;

use super::activations::{BLOCK, Block};
use super::attend::{Head, Row, attend, visible};
use super::dot::ROWS;
use super::panel::{Kind, Panel, able};

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
        let values = numbers(ROWS * width, 7);
        // SAFETY: the buffer has the size that ggml says, and there is no importance matrix.
        unsafe {
            let stride = sys::ggml_row_size(kind, width as i64);
            let mut bytes = vec![0_u8; ROWS * stride];
            let out = bytes.as_mut_ptr().cast::<c_void>();
            sys::ggml_quantize_chunk(kind, values.as_ptr(), out, 0, ROWS as i64, width as i64, ptr::null());
            Self { bytes, stride, width }
        }
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
    fn times(&self, kind: Kind, activations: &[Block]) -> Vec<[f32; ROWS]> {
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
        unsafe { kind.multiply(&panel) };
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

/// Each type that this processor has kernels for, with weights and quantized columns.
fn each(columns: usize, test: impl Fn(sys::ggml_type, Kind, &Weights, &[Block])) {
    for kind in TYPES {
        let Some(ours) = Kind::of(kind) else { continue };
        // Units of eight blocks, and what is left after them.
        let width = if ours.weights() == BLOCK { 18 * BLOCK } else { 5 * ours.weights() };
        let values = numbers(columns * width, 3);
        let blocks: Vec<Block> = values.as_chunks().0.iter().map(|block| ours.quantize(block)).collect();
        test(kind, ours, &Weights::new(kind, width), &blocks);
    }
}

#[test]
fn products_are_those_of_what_ggml_unpacks() {
    each(3, |kind, ours, weights, activations| {
        let (blocks, products) = (weights.width / BLOCK, weights.times(ours, activations));
        for row in 0..ROWS {
            let values = weights.row(kind, row);
            for (column, products) in products.iter().enumerate() {
                let column = &activations[column * blocks..(column + 1) * blocks];
                let terms = column.iter().zip(values.as_chunks::<BLOCK>().0).flat_map(|(block, weights)| {
                    let quants = block.quants.iter().zip(weights);
                    quants.map(|(quant, weight)| {
                        f64::from(block.scale) * f64::from(*quant) * f64::from(*weight)
                    })
                });
                let (mut sum, mut size) = (0.0, 0.0);
                terms.for_each(|term| (sum, size) = (sum + term, size + term.abs()));
                let error = (f64::from(products[row]) - sum).abs();
                assert!(error <= 1e-5 * size, "type {kind} row {row}: {} and not {sum}", products[row]);
            }
        }
    });
}

#[test]
fn many_columns_give_the_bits_of_one() {
    each(29, |kind, ours, weights, activations| {
        let blocks = weights.width / BLOCK;
        let bits = |products: Vec<[f32; ROWS]>| {
            products.into_iter().map(|one| one.map(f32::to_bits)).collect::<Vec<_>>()
        };
        let single: Vec<_> =
            activations.chunks(blocks).flat_map(|one| bits(weights.times(ours, one))).collect();
        for columns in [2, 3, 5, 8, 9, 16, 29] {
            let together = bits(weights.times(ours, &activations[..columns * blocks]));
            assert_eq!(together, single[..columns], "type {kind}, {columns} columns");
        }
    });
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
        queries: &[Vec<f32>],
        cells: &[u32],
        lengths: [usize; R],
    ) -> Vec<Vec<f32>> {
        let mut out = vec![vec![0.0; self.size]; R];
        let (keys, values) = (self.keys.as_ptr().cast(), self.values.as_ptr().cast());
        let (key_size, value_size) = (self.size, self.size);
        let (key_stride, value_stride) = (2 * self.size, 2 * self.size);
        let head = Head { keys, values, key_stride, value_stride, key_size, value_size };
        let rows = std::array::from_fn(|row| Row {
            query: queries[row].as_ptr(),
            out: out[row].as_mut_ptr(),
            cells: lengths[row],
        });
        if able() {
            // SAFETY: queries and results have the head's size, and the cells are its own.
            unsafe { attend::<R>(&head, 0.125, &rows, cells) };
        }
        out
    }
}

#[test]
fn attention_is_the_softmax_of_what_is_seen() {
    let (cache, cells) = (Cache::new(90, 80), (3..70).step_by(2).collect::<Vec<u32>>());
    let query = vec![numbers(80, 5)];
    let [out] = &cache.attend(&query, &cells, [cells.len()])[..] else { panic!("one row") };
    let (keys, values) = (Cache::numbers(&cache.keys), Cache::numbers(&cache.values));
    let score = |cell: u32| {
        let key = &keys[cell as usize * 80..][..80];
        0.125 * key.iter().zip(&query[0]).map(|(key, query)| key * f64::from(*query)).sum::<f64>()
    };
    let weights: Vec<f64> = cells.iter().map(|cell| score(*cell).exp()).collect();
    for (index, out) in out.iter().enumerate().filter(|_| able()) {
        let terms =
            cells.iter().zip(&weights).map(|(cell, weight)| weight * values[*cell as usize * 80 + index]);
        let wanted = terms.sum::<f64>() / weights.iter().sum::<f64>();
        assert!((f64::from(*out) - wanted).abs() < 1e-4, "{index}: {out} and not {wanted}");
    }
}

#[test]
fn a_row_has_the_same_bits_beside_others_and_elsewhere() {
    let bits = |rows: &[Vec<f32>]| {
        rows.iter().map(|row| row.iter().map(|one| one.to_bits()).collect()).collect::<Vec<Vec<u32>>>()
    };
    let (mut cache, cells) = (Cache::new(120, 64), (0..53).collect::<Vec<u32>>());
    let queries: Vec<Vec<f32>> = (0..4).map(|seed| numbers(64, seed)).collect();
    // One of them has seen all but the last chunk, one a part of that.
    let lengths = [31, 32, 40, 53];
    let together = bits(&cache.attend(&queries, &cells, lengths));
    for row in 0..4 {
        let alone = cache.attend(&queries[row..], &cells[..lengths[row]], [lengths[row]]);
        assert_eq!(bits(&alone)[0], together[row], "row {row}");
    }
    // The same contents, in other cells.
    for copied in [&mut cache.keys, &mut cache.values] {
        copied.copy_within(0..53 * 64, 61 * 64);
    }
    let elsewhere: Vec<u32> = (61..114).collect();
    assert_eq!(bits(&cache.attend(&queries, &elsewhere, lengths)), together);
}

#[test]
fn what_a_row_does_not_see_cannot_spoil_it() {
    let (mut cache, cells) = (Cache::new(20, 64), (0..20).collect::<Vec<u32>>());
    let queries: Vec<Vec<f32>> = (0..2).map(|seed| numbers(64, seed)).collect();
    let good = cache.attend(&queries, &cells, [18, 20]);
    // Infinite, in the half precision of the cache.
    cache.values[18 * 64..].fill(0x7C00);
    let spoiled = cache.attend(&queries, &cells, [18, 20]);
    assert_eq!(spoiled[0], good[0]);
    assert!(!able() || spoiled[1].iter().all(|value| !value.is_finite()));
}

#[test]
fn a_mask_lets_cells_through() {
    if !able() {
        return;
    }
    let wanted: Vec<u32> = (0..32).chain([40, 63, 64, 70, 99]).collect();
    let mut mask = [0xFC00_u16; 101];
    wanted.iter().for_each(|cell| mask[*cell as usize] = 0);
    let mut cells = vec![7];
    // SAFETY: the processor was asked.
    unsafe { visible(&mask, &mut cells) };
    assert_eq!(cells, wanted);
}
