//! The SIMD operations of the kernels, on vectors of sixteen 32-bit lanes.
//!
//! All instruction sets apply the same operations to the same lanes in the same order. So a pass gives the
//! same bits on all of them.

use std::sync::OnceLock;

/// Instruction sets with kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InstructionSet {
    /// AVX2, FMA and F16C.
    Avx2,
    /// Also AVX-512 F, BW and VNNI.
    Avx512,
}

impl InstructionSet {
    /// The instruction sets that this processor supports, the best one last.
    pub(crate) fn supported_sets() -> Vec<Self> {
        let has_avx2 = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        let has_avx512 = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vnni");
        let sets = [has_avx2.then_some(Self::Avx2), (has_avx2 && has_avx512).then_some(Self::Avx512)];
        sets.into_iter().flatten().collect()
    }

    /// The best supported instruction set. `TIGHTWAD_KERNELS=avx2` selects AVX2. `TIGHTWAD_KERNELS=ggml`
    /// disables these kernels, for comparisons with ggml's.
    pub(crate) fn selected_set() -> Option<Self> {
        static SELECTED: OnceLock<Option<InstructionSet>> = OnceLock::new();
        *SELECTED.get_or_init(|| {
            let requested = std::env::var_os("TIGHTWAD_KERNELS").unwrap_or_default();
            Self::supported_sets()
                .into_iter()
                .rfind(|set| requested != "ggml" && (requested != "avx2" || *set == Self::Avx2))
        })
    }
}

/// Lanes of a vector: rows of a panel, or cells of a chunk.
pub(crate) const LANES: usize = 16;

/// Sixteen 32-bit integers, or sixteen groups of four bytes.
///
/// # Safety
///
/// For all functions: the processor supports these vectors, and the pointers satisfy the descriptions.
pub(crate) trait SimdI32: Copy {
    /// Sixteen floats of the same instruction set.
    type F32: SimdF32;

    /// The number of columns whose sums fit the registers.
    const MAX_COLUMNS: usize;
    /// Up to this number of columns, a buffer of unpacked tiles saves no time.
    const MAX_FUSED_COLUMNS: usize;

    /// Loads sixteen bytes of each of 16 rows, which are `stride` bytes apart. Lane `r` of vector `i`
    /// contains bytes `4 i` to `4 i + 3` of row `r`.
    unsafe fn load_transposed16(ptr: *const u8, stride: usize) -> [Self; 4];
    /// `number` in all lanes.
    unsafe fn splat(number: i32) -> Self;
    unsafe fn and(self, other: Self) -> Self;
    unsafe fn or(self, other: Self) -> Self;
    unsafe fn xor(self, other: Self) -> Self;
    /// Shifts each lane left.
    unsafe fn shl(self, bits: usize) -> Self;
    /// Shifts each lane right and fills with zeros.
    unsafe fn shr(self, bits: usize) -> Self;
    /// Shifts each lane right and fills with the sign.
    unsafe fn sra(self, bits: usize) -> Self;
    /// The low 32 bits of the products.
    unsafe fn mullo(self, other: Self) -> Self;
    /// The table's entry for each byte; each byte is below 16.
    unsafe fn shuffle(self, table: &[u8; 16]) -> Self;
    /// Converts each lane to a float.
    unsafe fn to_f32(self) -> Self::F32;
    /// Converts the half-precision number in the low 16 bits of each lane.
    unsafe fn low_f16_to_f32(self) -> Self::F32;
    /// A bit mask of the numbers that differ from `number`.
    unsafe fn cmp_ne_u16(numbers: &[u16; 32], number: u16) -> u32;

    /// Dot products of each row's weights and each column's activations. Each lane of `quants` contains four
    /// weights of a row, with the zero point added. `columns` points to the activations. `zero_point_terms`
    /// cancels the zero point.
    unsafe fn dot_u8i8<F: QuantRange, const G: usize, const N: usize>(
        quants: &[Self; G],
        columns: [*const i8; N],
        zero_point_terms: [i32; N],
    ) -> [Self; N];
}

/// The range of a format's quants.
pub(crate) trait QuantRange {
    /// The greatest quant, including the zero point.
    const MAX_QUANT: i32;
    /// The number that was added to each weight to make it non-negative.
    const ZERO_POINT: i32;
}

/// Sixteen floats.
///
/// # Safety
///
/// As for [`SimdI32`].
pub(crate) trait SimdF32: Copy {
    /// The number of value vectors whose sums for four rows fit the registers.
    const MAX_VALUE_VECTORS: usize;

    unsafe fn splat(number: f32) -> Self;
    unsafe fn load(ptr: *const f32) -> Self;
    /// Loads sixteen half-precision numbers.
    unsafe fn load_f16(ptr: *const u8) -> Self;
    unsafe fn store(self, ptr: *mut f32);
    unsafe fn sub(self, other: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    /// `self * factor + sum`, rounded once.
    unsafe fn mul_add(self, factor: Self, sum: Self) -> Self;
    /// `sum - self * factor`, rounded once.
    unsafe fn neg_mul_add(self, factor: Self, sum: Self) -> Self;
    /// The greater number of each lane. If one number is NaN, the number of `other`.
    unsafe fn max(self, other: Self) -> Self;
    /// Rounds to the nearest integer; ties to even.
    unsafe fn round(self) -> Self;
    /// Multiplies by two to the power of `exponent`, an integer from -150 to 0; rounded once.
    unsafe fn scalef(self, exponent: Self) -> Self;
    /// The first `count` lanes of `self`, and the remaining lanes of `other`.
    unsafe fn blend_first(self, count: usize, other: Self) -> Self;
    /// The sum of all lanes, in a fixed order.
    unsafe fn reduce_add(self) -> f32;
    /// The greatest lane.
    unsafe fn reduce_max(self) -> f32;
    /// The sums of all vectors: lane `i` contains the sum of vector `i`, in a fixed order.
    unsafe fn transpose_reduce_add(vectors: &[Self; LANES]) -> Self;
}
