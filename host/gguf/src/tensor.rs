//! The tensors of a header.

use crate::error::GgufError;

/// A tensor, as the header describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// The name, without control characters.
    pub name: String,
    /// The sizes of the dimensions; the first one varies fastest.
    pub sizes: Vec<u64>,
    /// The type of the values.
    pub kind: TensorType,
    /// The offset from the beginning of the tensor data, in bytes.
    pub offset: u64,
}

impl TensorInfo {
    /// The number of bytes of the values.
    ///
    /// # Errors
    ///
    /// Returns [`GgufError`] if ggml does not know the type, or if no tensor can have these sizes.
    pub fn byte_count(&self) -> Result<u64, GgufError> {
        let Some((block_values, block_bytes)) = self.kind.block() else {
            return Err(GgufError::UnknownTensorType { name: self.name.clone(), kind: self.kind.0 });
        };
        let rows = self.sizes.iter().skip(1).try_fold(1_u64, |rows, size| rows.checked_mul(*size));
        let first = self.sizes.first().copied().unwrap_or(1);
        let bytes = rows.and_then(|rows| (first / block_values).checked_mul(block_bytes)?.checked_mul(rows));
        // ggml counts in signed numbers.
        bytes
            .filter(|bytes| *bytes < 1 << 62 && first.is_multiple_of(block_values))
            .ok_or_else(|| GgufError::BadShape { name: self.name.clone(), sizes: self.sizes.clone() })
    }

    /// The layer `N` of a tensor with a name such as `blk.N.attn_q.weight`.
    #[must_use]
    pub fn layer(&self) -> Option<u32> {
        let (number, _) = self.name.strip_prefix("blk.")?.split_once('.')?;
        number.parse().ok()
    }
}

/// The type of a tensor's values: a number of ggml's `ggml_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TensorType(pub u32);

impl TensorType {
    /// The values and the bytes of a block; `None` for a type that ggml 0.26.0 does not know.
    #[must_use]
    pub fn block(self) -> Option<(u64, u64)> {
        let types = BLOCKS.iter().find(|(kind, ..)| *kind == self.0);
        types.map(|(_, values, bytes)| (*values, *bytes))
    }
}

/// Number of the type, values of a block, bytes of a block. Source: `type_traits` in `ggml.c`.
#[rustfmt::skip]
const BLOCKS: [(u32, u64, u64); 35] = [
    // F32, F16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q8_1
    (0, 1, 4), (1, 1, 2), (2, 32, 18), (3, 32, 20), (6, 32, 22), (7, 32, 24), (8, 32, 34), (9, 32, 36),
    // Q2_K to Q6_K, Q8_K
    (10, 256, 84), (11, 256, 110), (12, 256, 144), (13, 256, 176), (14, 256, 210), (15, 256, 292),
    // IQ2_XXS, IQ2_XS, IQ3_XXS, IQ1_S, IQ4_NL, IQ3_S, IQ2_S, IQ4_XS
    (16, 256, 66), (17, 256, 74), (18, 256, 98), (19, 256, 50), (20, 32, 18), (21, 256, 110), (22, 256, 82),
    (23, 256, 136),
    // I8, I16, I32, I64, F64, IQ1_M, BF16
    (24, 1, 1), (25, 1, 2), (26, 1, 4), (27, 1, 8), (28, 1, 8), (29, 256, 56), (30, 1, 2),
    // TQ1_0, TQ2_0, MXFP4, NVFP4, Q1_0, Q2_0
    (34, 256, 54), (35, 256, 66), (39, 32, 17), (40, 64, 36), (41, 128, 18), (42, 64, 18),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(kind: u32, sizes: &[u64]) -> TensorInfo {
        TensorInfo { name: "t".to_owned(), sizes: sizes.to_vec(), kind: TensorType(kind), offset: 0 }
    }

    #[test]
    fn byte_count_follows_blocks_and_refuses_impossible_sizes() {
        assert_eq!(tensor(0, &[]).byte_count().unwrap(), 4);
        assert_eq!(tensor(0, &[3, 5]).byte_count().unwrap(), 60);
        assert_eq!(tensor(12, &[512, 3]).byte_count().unwrap(), 2 * 3 * 144);
        assert_eq!(tensor(0, &[7, 0]).byte_count().unwrap(), 0);
        assert!(matches!(tensor(12, &[500]).byte_count(), Err(GgufError::BadShape { .. })));
        assert!(matches!(tensor(0, &[1 << 40, 1 << 40]).byte_count(), Err(GgufError::BadShape { .. })));
        assert!(matches!(tensor(4, &[32]).byte_count(), Err(GgufError::UnknownTensorType { kind: 4, .. })));
    }

    #[test]
    fn layer_is_the_number_in_the_name() {
        let named = |name: &str| TensorInfo { name: name.to_owned(), ..tensor(0, &[]) }.layer();
        assert_eq!(named("blk.12.attn_q.weight"), Some(12));
        assert_eq!((named("output.weight"), named("blk.x.y"), named("blk.3")), (None, None, None));
    }
}
