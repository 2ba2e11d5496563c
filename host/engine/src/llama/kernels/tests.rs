//! The kernels against ggml's own unpacking, and against themselves.

use std::ffi::c_void;
use std::ptr;

use llama_cpp_sys_2 as sys;

use super::activations::{BLOCK, Block};
use super::dot::ROWS;
use super::panel::{Kind, Panel};

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
            let unpack = (*sys::ggml_get_type_traits(kind)).to_float.unwrap();
            let from = self.bytes.as_ptr().add(row * self.stride).cast::<c_void>();
            unpack(from, values.as_mut_ptr(), self.width as i64);
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
                    quants.map(|(quant, weight)| f64::from(block.scale) * f64::from(*quant) * f64::from(*weight))
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
        let bits = |products: Vec<[f32; ROWS]>| products.into_iter().map(|one| one.map(f32::to_bits)).collect::<Vec<_>>();
        let single: Vec<_> = activations.chunks(blocks).flat_map(|one| bits(weights.times(ours, one))).collect();
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
    assert_eq!((block.scale, block.starts), (2.0 / 127.0, [8 * 63, -8]));
    assert_eq!(Block::new(&[0.0; BLOCK], 8).scale, 0.0);
    let odd = Block::new(&[f32::NAN; BLOCK], 8);
    assert_eq!(odd.quants, [0; BLOCK]);
}
