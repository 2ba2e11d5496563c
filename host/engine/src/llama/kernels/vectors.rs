//! What the kernels ask of a processor: vectors of sixteen lanes, 32 bits each.
//!
//! Each kind of processor does the same operations on the same lanes in the same order, so that all give the same
//! bits, wherever a pass is computed.

use std::sync::OnceLock;

/// Processors that the kernels know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Processor {
    /// With AVX2, FMA and F16C.
    Avx2,
    /// With AVX-512 F, BW and VNNI too.
    Avx512,
}

impl Processor {
    /// All that this processor is, the best one last.
    pub(crate) fn all() -> Vec<Self> {
        let old = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        let new = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vnni");
        let known = [old.then_some(Self::Avx2), (old && new).then_some(Self::Avx512)];
        known.into_iter().flatten().collect()
    }

    /// The best one, unless `TIGHTWAD_KERNELS` names another: `avx2`, or `ggml` for ggml's kernels and none of
    /// ours (to compare with them).
    pub(crate) fn chosen() -> Option<Self> {
        static CHOSEN: OnceLock<Option<Processor>> = OnceLock::new();
        *CHOSEN.get_or_init(|| {
            let wanted = std::env::var_os("TIGHTWAD_KERNELS").unwrap_or_default();
            Self::all().into_iter().rfind(|one| wanted != "ggml" && (wanted != "avx2" || *one == Self::Avx2))
        })
    }
}

/// Lanes of a vector: rows of a panel, cells of a chunk.
pub(crate) const LANES: usize = 16;

/// Sixteen integers, or four bytes in each lane.
///
/// # Safety
///
/// Of all functions: the processor has these vectors, and pointers lead to what is said of them.
pub(crate) trait Words: Copy {
    /// Sixteen floats of the same processor.
    type Floats: Floats;

    /// Columns of a product whose sums find room in registers.
    const COLUMNS: usize;
    /// Columns up to which nothing is gained by unpacking several tiles before they are used.
    const STRAIGHT: usize;

    /// Sixteen bytes of each of 16 rows, which are `stride` bytes apart: vector `i` has bytes `4 i` to
    /// `4 i + 3` of row `r` in lane `r`.
    unsafe fn sixteen(at: *const u8, stride: usize) -> [Self; 4];
    /// The same number in each lane.
    unsafe fn set(number: i32) -> Self;
    unsafe fn and(self, other: Self) -> Self;
    unsafe fn or(self, other: Self) -> Self;
    unsafe fn xor(self, other: Self) -> Self;
    /// Each lane shifted left.
    unsafe fn up(self, bits: usize) -> Self;
    /// Each lane shifted right; zeros follow.
    unsafe fn down(self, bits: usize) -> Self;
    /// The same with copies of the sign.
    unsafe fn down_signed(self, bits: usize) -> Self;
    /// The lower halves of products.
    unsafe fn times(self, other: Self) -> Self;
    /// What the table has for each byte, which is below 16.
    unsafe fn look_up(self, table: &[u8; 16]) -> Self;
    /// Each lane as a float.
    unsafe fn floats(self) -> Self::Floats;
    /// The number in half precision in each lane's lower half.
    unsafe fn halves(self) -> Self::Floats;
    /// A bit for each of 32 numbers that is not `number`.
    unsafe fn unequal(numbers: &[u16; 32], number: u16) -> u32;

    /// Each row's weights times each column's activations, added up: `quants` has four of a row's weights in each
    /// lane, with the format's offset, `columns` as many activations; `starts` takes the offset away again.
    unsafe fn dots<F: QuantRange, const G: usize, const N: usize>(
        quants: &[Self; G],
        columns: [*const i8; N],
        starts: [i32; N],
    ) -> [Self; N];
}

/// Which numbers the quants of a format can be.
pub(crate) trait QuantRange {
    /// The greatest quant, with the offset.
    const MOST: i32;
    /// What was added to each weight to make it positive.
    const OFFSET: i32;
}

/// Sixteen floats.
///
/// # Safety
///
/// As for [`Words`].
pub(crate) trait Floats: Copy {
    /// Vectors of values, of four rows, whose sums find room in registers.
    const PARTS: usize;

    unsafe fn set(number: f32) -> Self;
    unsafe fn load(at: *const f32) -> Self;
    /// Sixteen numbers in half precision.
    unsafe fn load_halves(at: *const u8) -> Self;
    unsafe fn store(self, at: *mut f32);
    unsafe fn sub(self, other: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    /// `self * factor + sum`, rounded once.
    unsafe fn mul_add(self, factor: Self, sum: Self) -> Self;
    /// `sum - self * factor`, rounded once.
    unsafe fn mul_sub_from(self, factor: Self, sum: Self) -> Self;
    /// The greater one; `other` where one of them is no number.
    unsafe fn max(self, other: Self) -> Self;
    /// To the nearest integer, to the even one of two.
    unsafe fn round(self) -> Self;
    /// Times two to the power of `whole`, integers from -150 to 0; rounded once.
    unsafe fn scale(self, whole: Self) -> Self;
    /// The first `count` lanes, and the others of `rest`.
    unsafe fn first(self, count: usize, rest: Self) -> Self;
    /// All lanes, added up in one order.
    unsafe fn sum(self) -> f32;
    /// The greatest lane.
    unsafe fn greatest(self) -> f32;
    /// The sum of each vector, in the lane of its number; all are added up in one order.
    unsafe fn across(vectors: &[Self; LANES]) -> Self;
}
