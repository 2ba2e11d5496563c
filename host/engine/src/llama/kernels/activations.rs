//! Activations as the kernels read them: 8 bits, with a scale for each 32.

/// Values that share a scale.
pub(crate) const BLOCK: usize = 32;

/// A number around which floats are one apart, and its bits count them.
const WHOLE: f32 = 12_582_912.0;

/// 32 values of a column, each `scale` times its quant.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C)]
pub(crate) struct Block {
    pub quants: [i8; BLOCK],
    pub scale: f32,
    /// `scale` times the sum of the quants: what a weight's minimum is multiplied by.
    pub sum: f32,
    /// The same for the first and the second sixteen.
    pub sums: [f32; 2],
    /// Where the sum of products begins: it takes away again what was added to each weight to make it positive.
    pub start: i32,
    /// The same for the first and the second sixteen.
    pub starts: [i32; 2],
}

impl Block {
    /// Quantizes values, for weights that `offset` was added to.
    #[inline(always)]
    pub(crate) fn new(values: &[f32; BLOCK], offset: i32) -> Self {
        let most = values.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
        let inverse = if most > 0.0 { 127.0 / most } else { 0.0 };
        // The maximum passes over what is no number; products must not.
        let known = values.iter().all(|value| !value.is_nan());
        let mut block = Self {
            quants: [0; BLOCK],
            scale: if known { most / 127.0 } else { f32::NAN },
            sum: 0.0,
            sums: [0.0; 2],
            start: 0,
            starts: [0; 2],
        };
        let mut sums = [0_i32; 2];
        for (index, value) in values.iter().enumerate() {
            // To the nearest, to the even one of two, and 127 at most, as `most` is the greatest: so far above
            // zero floats are whole numbers.
            let quant = (value * inverse + WHOLE).to_bits().wrapping_sub(WHOLE.to_bits()) as i8;
            block.quants[index] = quant;
            sums[index / 16] += i32::from(quant);
        }
        block.sums = sums.map(|sum| block.scale * sum as f32);
        block.starts = sums.map(|sum| -offset * sum);
        block.sum = block.scale * (sums[0] + sums[1]) as f32;
        block.start = -offset * (sums[0] + sums[1]);
        block
    }
}
