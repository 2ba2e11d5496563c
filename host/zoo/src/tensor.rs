//! Tensors with random values, in the formats that ggml reads.

/// How values lie in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    F32,
    F16,
    /// Blocks of 32 values of eight bits with a common scale.
    Q8,
}

impl Format {
    /// ggml's number (`ggml_type`).
    pub(crate) fn number(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q8 => 8,
        }
    }
}

/// Values of a block.
const BLOCK: usize = 32;

/// A tensor as it lies in the file. The first size of the shape varies fastest.
#[derive(Debug)]
pub(crate) struct Tensor {
    pub shape: Vec<u64>,
    pub format: Format,
    pub bytes: Vec<u8>,
}

impl Tensor {
    /// All values are `value`.
    pub(crate) fn constant(shape: &[u64], value: f32) -> Self {
        Self::encoded(shape, Format::F32, std::iter::repeat(value))
    }

    /// Normally distributed values with a standard deviation of `scale`.
    pub(crate) fn random(shape: &[u64], format: Format, scale: f32, noise: &mut Noise) -> Self {
        Self::encoded(shape, format, std::iter::repeat_with(|| noise.normal() * scale))
    }

    fn encoded(shape: &[u64], format: Format, values: impl Iterator<Item = f32>) -> Self {
        let count = shape.iter().product::<u64>() as usize;
        let values: Vec<f32> = values.take(count).collect();
        let bytes = match format {
            Format::F32 => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Format::F16 => values.iter().flat_map(|value| half(*value).to_le_bytes()).collect(),
            Format::Q8 => values.chunks(BLOCK).flat_map(block).collect(),
        };
        Self { shape: shape.to_vec(), format, bytes }
    }
}

/// A block of `Q8_0`: a scale of 16 bits, then the values.
fn block(values: &[f32]) -> Vec<u8> {
    let greatest = values.iter().fold(0.0_f32, |greatest, value| greatest.max(value.abs()));
    let scale = greatest / 127.0;
    let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
    let mut bytes = half(scale).to_le_bytes().to_vec();
    bytes.extend(values.iter().map(|value| ((value * inverse).round() as i8).cast_unsigned()));
    bytes
}

/// The nearest number of 16 bits. Too small ones become 0; too large ones do not occur.
fn half(value: f32) -> u16 {
    let bits = value.to_bits();
    let sign = (bits >> 16) as u16 & 0x8000;
    let exponent = (bits >> 23 & 0xff).cast_signed() - 127 + 15;
    if exponent <= 0 {
        return sign;
    }
    // Rounding may carry into the exponent, which is right.
    let rounded = ((exponent as u32) << 10 | (bits >> 13 & 0x3ff)) + (bits >> 12 & 1);
    sign | rounded.min(0x7bff) as u16
}

/// Repeatable noise: SplitMix64.
#[derive(Debug)]
pub(crate) struct Noise(u64);

impl Noise {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// About normally distributed: the sum of four uniform numbers of 16 bits, with a variance of 1.
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
    fn halves_are_rounded_to_the_nearest() {
        for (value, bits) in
            [(1.0, 0x3c00), (-2.0, 0xc000), (0.5, 0x3800), (1.000_6, 0x3c01), (0.0, 0), (65_504.0, 0x7bff)]
        {
            assert_eq!(half(value), bits, "{value}");
        }
    }

    #[test]
    fn noise_has_the_variance_it_says() {
        let mut noise = Noise::new(1);
        let values: Vec<f32> = (0..10_000).map(|_| noise.normal()).collect();
        let mean = values.iter().sum::<f32>() / 10_000.0;
        let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f32>() / 10_000.0;
        assert!(mean.abs() < 0.05 && (variance - 1.0).abs() < 0.05, "{mean} {variance}");
    }
}
