//! Where ggml asks whether somebody else computes an operation.

use std::ffi::{c_int, c_void};

use llama_cpp_sys_2 as sys;

#[cfg(target_arch = "x86_64")]
use super::{attention::Attention, product::Product};

/// `struct ggml_compute_params` of `ggml-cpu-impl.h`.
#[repr(C)]
pub(super) struct Params {
    pub(super) thread: c_int,
    pub(super) threads: c_int,
    pub(super) work_size: usize,
    pub(super) work: *mut u8,
    pool: *mut c_void,
    reference: bool,
}

impl Params {
    /// Waits for all threads of the pool, and deals out numbers below `count` among them: each is taken by
    /// one. What any thread wrote before is visible to all.
    ///
    /// # Safety
    ///
    /// All threads of the pool call it, with the same count.
    #[cfg(target_arch = "x86_64")]
    pub(super) unsafe fn shares(&self, count: usize) -> impl Iterator<Item = usize> {
        // SAFETY: the pool is live; its first thread sets the counter before any goes on.
        unsafe {
            if self.thread == 0 {
                ggml_threadpool_chunk_set(self.pool, self.threads);
            }
            ggml_barrier(self.pool);
        }
        let (pool, mut first) = (self.pool, Some(self.thread as usize));
        std::iter::from_fn(move || {
            // SAFETY: the pool lives as long as its operation.
            let next =
                first.take().or_else(|| usize::try_from(unsafe { ggml_threadpool_chunk_add(pool, 1) }).ok());
            next.filter(|next| *next < count)
        })
    }
}

unsafe extern "C" {
    #[cfg(target_arch = "x86_64")]
    fn ggml_barrier(pool: *mut c_void);
    #[cfg(target_arch = "x86_64")]
    fn ggml_threadpool_chunk_set(pool: *mut c_void, value: c_int);
    #[cfg(target_arch = "x86_64")]
    fn ggml_threadpool_chunk_add(pool: *mut c_void, value: c_int) -> c_int;
}

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
