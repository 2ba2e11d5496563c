//! Tensors with random values, in ggml's formats.

/// The format of a tensor's values in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    F32,
    F16,
    /// `Q8_0`: blocks of 32 values of eight bits with a common scale.
    Q8,
}

impl Format {
    /// The number of the format in ggml (`ggml_type`).
    pub(crate) fn ggml_type(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q8 => 8,
        }
    }
}

/// The number of values of a block.
const BLOCK_VALUES: usize = 32;

/// A tensor, encoded for the file. The first dimension of the shape varies fastest.
#[derive(Debug, Clone)]
pub(crate) struct Tensor {
    pub shape: Vec<u64>,
    pub format: Format,
    pub bytes: Vec<u8>,
}

impl Tensor {
    /// A tensor whose values all equal `value`.
    pub(crate) fn constant(shape: &[u64], value: f32) -> Self {
        Self::encoded(shape, Format::F32, std::iter::repeat(value))
    }

    /// A tensor of normally distributed values with the standard deviation `scale`.
    pub(crate) fn random(shape: &[u64], format: Format, scale: f32, noise: &mut Noise) -> Self {
        Self::encoded(shape, format, std::iter::repeat_with(|| noise.normal() * scale))
    }

    /// A tensor of `values`, which must have at least as many entries as the shape.
    pub(crate) fn encoded(shape: &[u64], format: Format, values: impl Iterator<Item = f32>) -> Self {
        let count = shape.iter().product::<u64>() as usize;
        let values: Vec<f32> = values.take(count).collect();
        let bytes = match format {
            Format::F32 => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Format::F16 => values.iter().flat_map(|value| to_f16(*value).to_le_bytes()).collect(),
            Format::Q8 => values.chunks(BLOCK_VALUES).flat_map(q8_block).collect(),
        };
        Self { shape: shape.to_vec(), format, bytes }
    }
}

/// Encodes a block of `Q8_0`: a scale of 16 bits, then the values.
fn q8_block(values: &[f32]) -> Vec<u8> {
    let max = values.iter().fold(0.0_f32, |max, value| max.max(value.abs()));
    let scale = max / 127.0;
    let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
    let mut bytes = to_f16(scale).to_le_bytes().to_vec();
    bytes.extend(values.iter().map(|value| ((value * inverse).round() as i8).cast_unsigned()));
    bytes
}

/// Returns the bits of the nearest 16-bit float. Too small values become 0. Too large values do not occur.
fn to_f16(value: f32) -> u16 {
    let bits = value.to_bits();
    let sign = (bits >> 16) as u16 & 0x8000;
    let exponent = (bits >> 23 & 0xff).cast_signed() - 127 + 15;
    if exponent <= 0 {
        return sign;
    }
    // A carry into the exponent gives the right number.
    let rounded = ((exponent as u32) << 10 | (bits >> 13 & 0x3ff)) + (bits >> 12 & 1);
    sign | rounded.min(0x7bff) as u16
}

/// A reproducible generator of noise: SplitMix64.
#[derive(Debug)]
pub(crate) struct Noise(u64);

impl Noise {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// An approximately normally distributed number with a variance of 1: the sum of four uniform numbers of 16 bits.
    fn normal(&mut self) -> f32 {
        let bits = self.next();
        let sum: u64 = (0..4).map(|part| bits >> (16 * part) & 0xffff).sum();
        (sum as f32 / 65_536.0 - 2.0) * 1.732_050_8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn to_f16_rounds_to_the_nearest() {
        for (value, bits) in
            [(1.0, 0x3c00), (-2.0, 0xc000), (0.5, 0x3800), (1.000_6, 0x3c01), (0.0, 0), (65_504.0, 0x7bff)]
        {
            assert_eq!(to_f16(value), bits, "{value}");
        }
    }

    #[test]
    fn noise_has_a_variance_of_one() {
        let mut noise = Noise::new(1);
        let values: Vec<f32> = (0..10_000).map(|_| noise.normal()).collect();
        let mean = values.iter().sum::<f32>() / 10_000.0;
        let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f32>() / 10_000.0;
        assert!(mean.abs() < 0.05 && (variance - 1.0).abs() < 0.05, "{mean} {variance}");
    }
}
