//! Products of matrices and attention, many rows at once, bit for bit as one at a time.
//!
//! ggml has two kinds of kernels on x86: those that take one row at a time, which unpack the weights again for
//! each, and those that take many (`repack`, `llamafile`, tiled attention), which round otherwise than the
//! first and so give a verification of many tokens other logits than decoding one by one. The kernels here do
//! both with the same operations on floats, and a further row costs a fraction of the first one. They take the
//! formats of [`panel::Kind`], and attention over a cache in half precision, where the processor has AVX2 or
//! AVX-512 ([`vectors::Processor`]), which give the same bits; ggml computes everything else as before.
//!
//! ggml's own hook for other implementations (`traits.h`) asks about each operation of a pass; the linker leads
//! its two questions here (`--wrap` in `.cargo/config.toml`).

pub(crate) mod hook;

#[cfg(target_arch = "x86_64")]
pub(crate) mod activations;
#[cfg(target_arch = "x86_64")]
pub(crate) mod attend;
#[cfg(target_arch = "x86_64")]
pub(crate) mod attention;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
#[cfg(target_arch = "x86_64")]
pub(crate) mod dot;
#[cfg(target_arch = "x86_64")]
pub(crate) mod panel;
#[cfg(target_arch = "x86_64")]
pub(crate) mod product;
#[cfg(target_arch = "x86_64")]
pub(crate) mod simple;
#[cfg(target_arch = "x86_64")]
pub(crate) mod super_blocks;
#[cfg(target_arch = "x86_64")]
pub(crate) mod unpack;
#[cfg(target_arch = "x86_64")]
pub(crate) mod vectors;

pub(crate) mod compute;
#[cfg(all(test, target_arch = "x86_64"))]
mod tests;
