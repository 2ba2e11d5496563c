//! Where ggml asks whether somebody else computes an operation.

use std::ffi::c_int;

use llama_cpp_sys_2 as sys;

use crate::llama::kernels::compute::Params;

#[cfg(target_arch = "x86_64")]
use crate::llama::kernels::attention::Attention;
use crate::llama::kernels::product::Product;

unsafe extern "C" {
    fn __real_ggml_cpu_extra_work_size(
        threads: c_int,
        operation: *const sys::ggml_tensor,
        size: *mut usize,
    ) -> bool;
    fn __real_ggml_cpu_extra_compute_forward(params: *mut Params, operation: *mut sys::ggml_tensor) -> bool;
}

/// How much memory `operation` needs beside its own; true where it is one of ours.
///
/// # Safety
///
/// That of `ggml_cpu_extra_work_size`: pointers are live.
// SAFETY: no other symbol has this name; the linker makes it only for the wrapped function.
#[unsafe(no_mangle)]
unsafe extern "C" fn __wrap_ggml_cpu_extra_work_size(
    threads: c_int,
    operation: *const sys::ggml_tensor,
    size: *mut usize,
) -> bool {
    // SAFETY: ggml gives a live operation, and a place for the size.
    unsafe {
        // Weights that others have laid out are theirs.
        if __real_ggml_cpu_extra_work_size(threads, operation, size) {
            return true;
        }
        #[cfg(target_arch = "x86_64")]
        if let Some(product) = Product::of(&*operation) {
            *size = product.work_size();
            return true;
        }
        false
    }
}

/// Computes one thread's share of `operation`, where it is one of ours.
///
/// # Safety
///
/// That of `ggml_cpu_extra_compute_forward`: all threads of a pool call it with one operation.
// SAFETY: no other symbol has this name; the linker makes it only for the wrapped function.
#[unsafe(no_mangle)]
unsafe extern "C" fn __wrap_ggml_cpu_extra_compute_forward(
    params: *mut Params,
    operation: *mut sys::ggml_tensor,
) -> bool {
    // SAFETY: ggml gives live parameters and a live operation whose operands are computed.
    unsafe {
        if __real_ggml_cpu_extra_compute_forward(params, operation) {
            return true;
        }
        #[cfg(target_arch = "x86_64")]
        if let Some(product) = Product::of(&*operation)
            && product.work_size() <= (*params).work_size
        {
            product.compute(&*params);
            return true;
        }
        #[cfg(target_arch = "x86_64")]
        if let Some(attention) = Attention::of(&*operation) {
            attention.compute(&*params);
            return true;
        }
        false
    }
}
