//! A thread's share of an operation, as ggml hands it out.

use std::ffi::{c_int, c_void};

/// `struct ggml_compute_params` of `ggml-cpu-impl.h`.
#[repr(C)]
pub(crate) struct Params {
    pub(crate) thread: c_int,
    pub(crate) threads: c_int,
    pub(crate) work_size: usize,
    pub(crate) work: *mut u8,
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
    pub(crate) unsafe fn shares(&self, count: usize) -> impl Iterator<Item = usize> {
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
