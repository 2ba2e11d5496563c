//! Row-invariant kernels: matrix products and attention over many rows, with the same bits as one row at a
//! time.
//!
//! On x86, ggml has kernels for one row, which unpack the weights again for each row. ggml also has kernels
//! for many rows (`repack`, `llamafile`, tiled attention). The two kinds round differently, so batched
//! verification and one-token decoding give different logits. The kernels of this module use the same float
//! operations for one row and for many rows. An additional row costs a fraction of the first row. The kernels
//! support the formats of [`panel::WeightFormat`], and attention over a cache in half precision. The kernels
//! need AVX2 or AVX-512 ([`simd::InstructionSet`]); both instruction sets give the same bits. ggml computes
//! all other operations.
//!
//! ggml asks its extra implementations (`traits.h`) about each operation of a pass. The linker redirects the
//! two calls to this module (`--wrap` in `.cargo/config.toml`).

pub(crate) mod hook;

#[cfg(target_arch = "x86_64")]
pub(crate) mod activations;
#[cfg(target_arch = "x86_64")]
pub(crate) mod attention;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
#[cfg(target_arch = "x86_64")]
pub(crate) mod dot;
#[cfg(target_arch = "x86_64")]
pub(crate) mod k_quants;
#[cfg(target_arch = "x86_64")]
pub(crate) mod legacy_quants;
#[cfg(target_arch = "x86_64")]
pub(crate) mod mul_mat;
#[cfg(target_arch = "x86_64")]
pub(crate) mod panel;
#[cfg(target_arch = "x86_64")]
pub(crate) mod simd;
#[cfg(target_arch = "x86_64")]
pub(crate) mod unpack;

pub(crate) mod compute;
#[cfg(all(test, target_arch = "x86_64"))]
mod tests;
