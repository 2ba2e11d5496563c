//! Quantized activations: 8 bits per value, and a scale per 32 values.

/// Values per scale.
pub(crate) const BLOCK_SIZE: usize = 32;

/// 1.5 * 2^23: adding it rounds a float to an integer, which then stands in the low bits.
const ROUNDING_MAGIC: f32 = 12_582_912.0;

/// 32 values of a column. Each value is `scale` times its quant.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C)]
pub(crate) struct ActivationBlock {
    pub quants: [i8; BLOCK_SIZE],
    pub scale: f32,
    /// `scale` times the sum of the quants, the factor of a weight's minimum.
    pub scaled_sum: f32,
    /// `scaled_sum` of the first and of the second sixteen values.
    pub half_scaled_sums: [f32; 2],
    /// The initial value of the integer dot product, which cancels the zero point that was added to each
    /// weight.
    pub zero_point_term: i32,
    /// `zero_point_term` of the first and of the second sixteen values.
    pub half_zero_point_terms: [i32; 2],
}

impl ActivationBlock {
    /// Quantizes values for weights with `zero_point`.
    #[inline(always)]
    pub(crate) fn new(values: &[f32; BLOCK_SIZE], zero_point: i32) -> Self {
        let max_abs = values.iter().fold(0.0_f32, |max_abs, value| max_abs.max(value.abs()));
        let inverse = if max_abs > 0.0 { 127.0 / max_abs } else { 0.0 };
        // `max` ignores NaN, but the products must be NaN.
        let all_numbers = values.iter().all(|value| !value.is_nan());
        let mut block = Self {
            quants: [0; BLOCK_SIZE],
            scale: if all_numbers { max_abs / 127.0 } else { f32::NAN },
            scaled_sum: 0.0,
            half_scaled_sums: [0.0; 2],
            zero_point_term: 0,
            half_zero_point_terms: [0; 2],
        };
        let mut sums = [0_i32; 2];
        for (index, value) in values.iter().enumerate() {
            // Rounds to the nearest integer, ties to even. The magnitude is at most 127, because `max_abs` is
            // the maximum. At this magnitude, consecutive floats are consecutive integers.
            let quant =
                (value * inverse + ROUNDING_MAGIC).to_bits().wrapping_sub(ROUNDING_MAGIC.to_bits()) as i8;
            block.quants[index] = quant;
            sums[index / 16] += i32::from(quant);
        }
        block.half_scaled_sums = sums.map(|sum| block.scale * sum as f32);
        block.half_zero_point_terms = sums.map(|sum| -zero_point * sum);
        block.scaled_sum = block.scale * (sums[0] + sums[1]) as f32;
        block.zero_point_term = -zero_point * (sums[0] + sums[1]);
        block
    }
}
