//! The hooks through which ggml offers operations to the kernels.

use std::ffi::c_int;

use llama_cpp_sys_2 as sys;

use crate::llama::kernels::compute::ComputeParams;

#[cfg(target_arch = "x86_64")]
use crate::llama::kernels::attention::op::Attention;
use crate::llama::kernels::mul_mat::MulMat;

unsafe extern "C" {
    fn __real_ggml_cpu_extra_work_size(
        threads: c_int,
        operation: *const sys::ggml_tensor,
        size: *mut usize,
    ) -> bool;
    fn __real_ggml_cpu_extra_compute_forward(
        params: *mut ComputeParams,
        operation: *mut sys::ggml_tensor,
    ) -> bool;
}

/// Returns true, and the bytes of work memory, if the kernels or ggml's extra implementations compute
/// `operation`.
///
/// # Safety
///
/// As for `ggml_cpu_extra_work_size`: the pointers are live.
// SAFETY: no other symbol has this name. The linker creates it only for the wrapped function.
#[unsafe(no_mangle)]
unsafe extern "C" fn __wrap_ggml_cpu_extra_work_size(
    threads: c_int,
    operation: *const sys::ggml_tensor,
    size: *mut usize,
) -> bool {
    // SAFETY: ggml passes a live operation, and a pointer for the size.
    unsafe {
        // ggml's extra implementations own weights in their layouts.
        if __real_ggml_cpu_extra_work_size(threads, operation, size) {
            return true;
        }
        #[cfg(target_arch = "x86_64")]
        if let Some(product) = MulMat::from_op(&*operation) {
            *size = product.work_size();
            return true;
        }
        false
    }
}

/// Computes one thread's part of `operation` and returns true if the kernels support it.
///
/// # Safety
///
/// As for `ggml_cpu_extra_compute_forward`: all threads of a pool call it with the same operation.
// SAFETY: no other symbol has this name. The linker creates it only for the wrapped function.
#[unsafe(no_mangle)]
unsafe extern "C" fn __wrap_ggml_cpu_extra_compute_forward(
    params: *mut ComputeParams,
    operation: *mut sys::ggml_tensor,
) -> bool {
    // SAFETY: ggml passes live parameters and a live operation with computed operands.
    unsafe {
        if __real_ggml_cpu_extra_compute_forward(params, operation) {
            return true;
        }
        #[cfg(target_arch = "x86_64")]
        if let Some(product) = MulMat::from_op(&*operation)
            && product.work_size() <= (*params).work_size
        {
            product.compute(&*params);
            return true;
        }
        #[cfg(target_arch = "x86_64")]
        if let Some(attention) = Attention::from_op(&*operation) {
            attention.compute(&*params);
            return true;
        }
        false
    }
}
