//! Compares the kernels with ggml's unpacking, and results of one row with results of many rows.

use std::ffi::c_void;
use std::ptr;

use llama_cpp_sys_2 as sys;

use crate::llama::kernels::activations::{ActivationBlock, BLOCK_SIZE};
use crate::llama::kernels::attention::kernel::{Head, QueryRow, attend, visible_cells};
use crate::llama::kernels::dot::PANEL_ROWS;
use crate::llama::kernels::panel::{Panel, WeightFormat};
use crate::llama::kernels::simd::InstructionSet;

/// Numbers between -1 and 1 with a few larger ones, like activations.
fn numbers(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / 8_388_608.0 - 1.0
    };
    (0..count).map(|index| next() * if index % 61 == 0 { 9.0 } else { 1.0 }).collect()
}

/// Sixteen rows of weights, quantized by ggml.
struct Weights {
    bytes: Vec<u8>,
    stride: usize,
    width: usize,
}

impl Weights {
    fn new(ggml_type: sys::ggml_type, width: usize) -> Self {
        // SAFETY: a pure function.
        let stride = unsafe { sys::ggml_row_size(ggml_type, width as i64) };
        let mut weights = Self { bytes: vec![0; PANEL_ROWS * stride], stride, width };
        weights.quantize(ggml_type, &numbers(PANEL_ROWS * width, 7));
        weights
    }

    fn quantize(&mut self, ggml_type: sys::ggml_type, values: &[f32]) {
        let (out, rows, width) =
            (self.bytes.as_mut_ptr().cast::<c_void>(), PANEL_ROWS as i64, self.width as i64);
        // SAFETY: the buffer has ggml's size, and there is no importance matrix.
        unsafe { sys::ggml_quantize_chunk(ggml_type, values.as_ptr(), out, 0, rows, width, ptr::null()) };
    }

    /// A row, unpacked by ggml.
    fn row(&self, ggml_type: sys::ggml_type, row: usize) -> Vec<f32> {
        let mut values = vec![0.0; self.width];
        // SAFETY: both buffers have the size of one row.
        unsafe {
            let from = self.bytes.as_ptr().add(row * self.stride).cast::<c_void>();
            if let Some(unpack) = (*sys::ggml_get_type_traits(ggml_type)).to_float {
                unpack(from, values.as_mut_ptr(), self.width as i64);
            }
        }
        values
    }

    /// The product of all rows with the columns.
    fn multiply(
        &self,
        isa: InstructionSet,
        format: WeightFormat,
        activations: &[ActivationBlock],
    ) -> Vec<[f32; PANEL_ROWS]> {
        let blocks = self.width / BLOCK_SIZE;
        let mut out = vec![[0.0; PANEL_ROWS]; activations.len() / blocks];
        let panel = Panel {
            weights: self.bytes.as_ptr(),
            stride: self.stride,
            prefetch: self.bytes.as_ptr(),
            blocks,
            activations,
            out: out.as_mut_ptr().cast(),
            out_stride: PANEL_ROWS,
        };
        // SAFETY: all sixteen rows are readable, and each column has room for its results.
        unsafe { format.multiply(isa, &panel) };
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

/// Each ggml type with its format.
fn formats() -> Vec<(sys::ggml_type, WeightFormat)> {
    let formats: Vec<_> = TYPES
        .into_iter()
        .filter_map(|ggml_type| Some((ggml_type, WeightFormat::from_ggml(ggml_type)?)))
        .collect();
    assert_eq!(formats.len(), TYPES.len());
    formats
}

/// Calls `test` for each type, with weights and quantized columns.
fn for_each_type(
    columns: usize,
    mut test: impl FnMut(sys::ggml_type, WeightFormat, &Weights, &[ActivationBlock]),
) {
    for (ggml_type, format) in formats() {
        // Several units of eight blocks, and an incomplete unit.
        let width =
            if format.block_weights() == BLOCK_SIZE { 18 * BLOCK_SIZE } else { 5 * format.block_weights() };
        let values = numbers(columns * width, 3);
        let blocks: Vec<ActivationBlock> =
            values.as_chunks().0.iter().map(|block| format.quantize(block)).collect();
        test(ggml_type, format, &Weights::new(ggml_type, width), &blocks);
    }
}

fn bits<const N: usize>(rows: &[[f32; N]]) -> Vec<[u32; N]> {
    rows.iter().map(|row| row.map(f32::to_bits)).collect()
}

#[test]
fn products_match_ggml_unpacking() {
    for_each_type(3, |ggml_type, format, weights, activations| {
        let blocks = weights.width / BLOCK_SIZE;
        for isa in InstructionSet::supported_sets() {
            let products = weights.multiply(isa, format, activations);
            for row in 0..PANEL_ROWS {
                let values = weights.row(ggml_type, row);
                for (column, products) in products.iter().enumerate() {
                    let column = &activations[column * blocks..(column + 1) * blocks];
                    let (sum, size) = product(column, &values);
                    let error = (f64::from(products[row]) - sum).abs();
                    let actual = products[row];
                    assert!(
                        error <= 1e-5 * size,
                        "{isa:?}, type {ggml_type}, row {row}: {actual} instead of {sum}"
                    );
                }
            }
        }
    });
}

/// The sum of a row's terms, and the sum of their magnitudes.
fn product(column: &[ActivationBlock], weights: &[f32]) -> (f64, f64) {
    let terms = column.iter().zip(weights.as_chunks::<BLOCK_SIZE>().0).flat_map(|(block, weights)| {
        let quants = block.quants.iter().zip(weights);
        quants.map(|(quant, weight)| f64::from(block.scale) * f64::from(*quant) * f64::from(*weight))
    });
    terms.fold((0.0, 0.0), |(sum, size), term| (sum + term, size + term.abs()))
}

#[test]
fn product_bits_do_not_depend_on_columns_or_instruction_set() {
    let mut first: Vec<(sys::ggml_type, Vec<[u32; PANEL_ROWS]>)> = Vec::new();
    for isa in InstructionSet::supported_sets() {
        let mut results = Vec::new();
        for_each_type(29, |ggml_type, format, weights, activations| {
            let blocks = weights.width / BLOCK_SIZE;
            let single_columns = activations.chunks(blocks);
            let single: Vec<_> =
                single_columns.flat_map(|column| bits(&weights.multiply(isa, format, column))).collect();
            for columns in [2, 3, 5, 8, 9, 16, 29] {
                let together = bits(&weights.multiply(isa, format, &activations[..columns * blocks]));
                assert_eq!(together, single[..columns], "{isa:?}, type {ggml_type}, {columns} columns");
            }
            results.push((ggml_type, single));
        });
        assert!(first.is_empty() || first == results, "{isa:?} gives different bits");
        first = results;
    }
}

#[test]
fn extreme_products_do_not_overflow() {
    // All weights at one end of their range, and all activations at the other.
    for (ggml_type, format) in formats() {
        let width = 2 * format.block_weights();
        for sign in [1.0, -1.0] {
            let mut weights = Weights::new(ggml_type, width);
            let values: Vec<f32> =
                (0..PANEL_ROWS * width).map(|at| if at % 32 == 0 { sign } else { -sign }).collect();
            weights.quantize(ggml_type, &values);
            let values = vec![1.0; width];
            let column: Vec<ActivationBlock> =
                values.as_chunks().0.iter().map(|block| format.quantize(block)).collect();
            for isa in InstructionSet::supported_sets() {
                let products = weights.multiply(isa, format, &column);
                let (sum, size) = product(&column, &weights.row(ggml_type, 3));
                let error = (f64::from(products[0][3]) - sum).abs();
                assert!(
                    error <= 1e-5 * size,
                    "{isa:?}, type {ggml_type}: {} instead of {sum}",
                    products[0][3]
                );
            }
        }
    }
}

#[test]
fn activations_round_to_the_nearest_quant() {
    let mut values = [0.0; BLOCK_SIZE];
    (values[0], values[1], values[31]) = (-2.0, 1.0, 0.011);
    let block = ActivationBlock::new(&values, 8);
    assert_eq!((block.quants[0], block.quants[1], block.quants[31]), (-127, 64, 1));
    assert_eq!(
        (block.scale, block.zero_point_term, block.half_zero_point_terms),
        (2.0 / 127.0, 8 * 62, [8 * 63, -8])
    );
    assert_eq!(ActivationBlock::new(&[0.0; BLOCK_SIZE], 8).scale, 0.0);
    let odd = ActivationBlock::new(&[f32::NAN; BLOCK_SIZE], 8);
    assert!(odd.scale.is_nan(), "products of NaN must be NaN");
}

/// The cache of one head, in half precision.
struct Cache {
    keys: Vec<u16>,
    values: Vec<u16>,
    size: usize,
}

impl Cache {
    fn new(cells: usize, size: usize) -> Self {
        let random_f16 = |seed| {
            let numbers = numbers(cells * size, seed);
            let mut halves = vec![0_u16; numbers.len()];
            // SAFETY: both buffers have `numbers.len()` elements.
            unsafe {
                sys::ggml_fp32_to_fp16_row(numbers.as_ptr(), halves.as_mut_ptr(), numbers.len() as i64)
            };
            halves
        };
        Self { keys: random_f16(11), values: random_f16(12), size }
    }

    fn numbers(halves: &[u16]) -> Vec<f64> {
        // SAFETY: a pure function.
        halves.iter().map(|half| f64::from(unsafe { sys::ggml_fp16_to_fp32(*half) })).collect()
    }

    /// Attention of `R` queries over prefixes of `cells` with these lengths.
    fn attend<const R: usize>(
        &self,
        isa: InstructionSet,
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
        let rows = std::array::from_fn(|row| QueryRow {
            query: queries[row].as_ptr(),
            out: out[row].as_mut_ptr(),
            cells: lengths[row],
        });
        // SAFETY: queries and results have the head's size, and the cells belong to the head.
        unsafe { attend::<R>(isa, &head, &rows, cells) };
        out
    }
}

#[test]
fn attention_matches_softmax_over_visible_cells() {
    let (cache, cells) = (Cache::new(90, 80), (3..70).step_by(2).collect::<Vec<u32>>());
    let query = vec![numbers(80, 5)];
    let (keys, values) = (Cache::numbers(&cache.keys), Cache::numbers(&cache.values));
    let score = |cell: u32| {
        let key = &keys[cell as usize * 80..][..80];
        0.125 * key.iter().zip(&query[0]).map(|(key, query)| key * f64::from(*query)).sum::<f64>()
    };
    let weights: Vec<f64> = cells.iter().map(|cell| score(*cell).exp()).collect();
    for isa in InstructionSet::supported_sets() {
        let out = cache.attend(isa, &query, &cells, [cells.len()]).remove(0);
        for (index, out) in out.into_iter().enumerate() {
            let terms = cells.iter().zip(&weights);
            let terms = terms.map(|(cell, weight)| weight * values[*cell as usize * 80 + index]);
            let expected = terms.sum::<f64>() / weights.iter().sum::<f64>();
            let error = (f64::from(out) - expected).abs();
            assert!(error < 1e-4, "{isa:?}, {index}: {out} instead of {expected}");
        }
    }
}

fn row_bits(rows: &[Vec<f32>]) -> Vec<Vec<u32>> {
    rows.iter().map(|row| row.iter().map(|value| value.to_bits()).collect()).collect()
}

#[test]
fn attention_bits_do_not_depend_on_other_rows_or_cell_positions() {
    let cells = (0..53).collect::<Vec<u32>>();
    let queries: Vec<Vec<f32>> = (0..4).map(|seed| numbers(64, seed)).collect();
    // One row sees all cells but those of the last chunk; another one sees a part of that chunk.
    let lengths = [31, 32, 40, 53];
    let mut first = Vec::new();
    for isa in InstructionSet::supported_sets() {
        let mut cache = Cache::new(120, 64);
        let together = row_bits(&cache.attend(isa, &queries, &cells, lengths));
        for row in 0..4 {
            let alone = cache.attend(isa, &queries[row..], &cells[..lengths[row]], [lengths[row]]);
            assert_eq!(row_bits(&alone)[0], together[row], "{isa:?}, row {row}");
        }
        // The same contents in other cells.
        for copied in [&mut cache.keys, &mut cache.values] {
            copied.copy_within(0..53 * 64, 61 * 64);
        }
        let elsewhere: Vec<u32> = (61..114).collect();
        assert_eq!(row_bits(&cache.attend(isa, &queries, &elsewhere, lengths)), together);
        assert!(first.is_empty() || first == together, "{isa:?} gives different bits");
        first = together;
    }
}

#[test]
fn hidden_cells_do_not_affect_rows() {
    let cells = (0..20).collect::<Vec<u32>>();
    let queries: Vec<Vec<f32>> = (0..2).map(|seed| numbers(64, seed)).collect();
    for isa in InstructionSet::supported_sets() {
        let mut cache = Cache::new(20, 64);
        let expected = cache.attend(isa, &queries, &cells, [18, 20]);
        // Infinity in half precision.
        cache.values[18 * 64..].fill(0x7C00);
        let with_infinity = cache.attend(isa, &queries, &cells, [18, 20]);
        assert_eq!(with_infinity[0], expected[0]);
        assert!(with_infinity[1].iter().all(|value| !value.is_finite()));
    }
}

#[test]
fn visible_cells_lists_unmasked_cells() {
    let expected: Vec<u32> = (0..32).chain([40, 63, 64, 70, 99]).collect();
    let mut mask = [0xFC00_u16; 101];
    expected.iter().for_each(|cell| mask[*cell as usize] = 0);
    for isa in InstructionSet::supported_sets() {
        let mut cells = vec![7];
        // SAFETY: the processor supports `isa`.
        unsafe { visible_cells(isa, &mask, &mut cells) };
        assert_eq!(cells, expected, "{isa:?}");
    }
}

#[test]
fn exp_reaches_subnormal_numbers() {
    // A score far below the maximum gives the smallest weight that a float can represent.
    let cells = [0, 1];
    for isa in InstructionSet::supported_sets() {
        let mut cache = Cache::new(2, 16);
        cache.keys.fill(0);
        cache.keys[0] = 0x3C00;
        cache.values[..16].fill(0);
        cache.values[16..].fill(0x7BFF);
        for (distance, expected) in [(95.0_f32, (-95.0_f64).exp()), (120.0, 0.0)] {
            let mut query = vec![0.0; 16];
            query[0] = 8.0 * distance;
            let out = cache.attend(isa, &[query], &cells, [2]).remove(0);
            let error = (f64::from(out[0]) / 65504.0 - expected).abs();
            assert!(error < 2e-45, "{isa:?}: {} instead of {expected} of 65504", out[0]);
        }
    }
}
