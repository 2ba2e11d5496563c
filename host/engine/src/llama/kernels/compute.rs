//! The parameters that ggml passes to each thread of an operation.

use std::ffi::{c_int, c_void};

#[cfg(target_arch = "x86_64")]
use llama_cpp_sys_2 as sys;

/// `struct ggml_compute_params` of `ggml-cpu-impl.h`.
#[repr(C)]
pub(crate) struct ComputeParams {
    pub(crate) thread_index: c_int,
    pub(crate) thread_count: c_int,
    pub(crate) work_size: usize,
    pub(crate) work: *mut u8,
    pool: *mut c_void,
    reference: bool,
}

impl ComputeParams {
    /// Waits for all threads of the pool, then distributes the numbers below `count`. Each number goes to one
    /// thread. All earlier writes of any thread are visible to all threads.
    ///
    /// # Safety
    ///
    /// All threads of the pool call this function with the same `count`.
    #[cfg(target_arch = "x86_64")]
    pub(crate) unsafe fn work_chunks(&self, count: usize) -> impl Iterator<Item = usize> {
        // SAFETY: the pool is live. The first thread sets the counter before any thread passes the barrier.
        unsafe {
            if self.thread_index == 0 {
                ggml_threadpool_chunk_set(self.pool, self.thread_count);
            }
            ggml_barrier(self.pool);
        }
        let (pool, mut first) = (self.pool, Some(self.thread_index as usize));
        std::iter::from_fn(move || {
            // SAFETY: the pool outlives the operation.
            let next =
                first.take().or_else(|| usize::try_from(unsafe { ggml_threadpool_chunk_add(pool, 1) }).ok());
            next.filter(|next| *next < count)
        })
    }
}

/// True if the position of the last value of `tensor` is a number of type `usize`. The sizes of a hostile tensor can
/// wrap `ggml_nbytes` around to a small number.
#[cfg(target_arch = "x86_64")]
pub(crate) fn has_valid_size(tensor: &sys::ggml_tensor) -> bool {
    let mut dimensions = tensor.ne.iter().zip(tensor.nb);
    let end = dimensions.try_fold(size_of::<f32>(), |end, (size, stride)| {
        let last = usize::try_from(*size).ok()?.saturating_sub(1);
        end.checked_add(last.checked_mul(stride)?)
    });
    end.is_some()
}

unsafe extern "C" {
    #[cfg(target_arch = "x86_64")]
    fn ggml_barrier(pool: *mut c_void);
    #[cfg(target_arch = "x86_64")]
    fn ggml_threadpool_chunk_set(pool: *mut c_void, value: c_int);
    #[cfg(target_arch = "x86_64")]
    fn ggml_threadpool_chunk_add(pool: *mut c_void, value: c_int) -> c_int;
}
