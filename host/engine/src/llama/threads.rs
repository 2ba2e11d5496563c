//! Threads that compute forward passes. Without these, ggml makes new ones for every pass; with
//! OpenMP's, which spin while they wait, models in one process slow each other down many times over.

use std::ptr::NonNull;

use llama_cpp_sys_2::{
    ggml_threadpool, ggml_threadpool_free, ggml_threadpool_new, ggml_threadpool_params_default,
};

/// A pool of threads; they sleep between passes.
pub(crate) struct Threads(NonNull<ggml_threadpool>);

// SAFETY: the pool is only used by the one context that owns it, and that is used by one thread at a
// time.
unsafe impl Send for Threads {}

impl Threads {
    /// `count` threads, the caller's own among them; `None` where the system gives none.
    pub(crate) fn new(count: i32) -> Option<Self> {
        // SAFETY: the parameters are plain data, valid for the call.
        let pool = unsafe {
            let mut params = ggml_threadpool_params_default(count);
            // No spinning between passes: the other core has other work.
            params.poll = 0;
            ggml_threadpool_new(&raw mut params)
        };
        NonNull::new(pool).map(Self)
    }

    pub(crate) fn as_ptr(&self) -> *mut ggml_threadpool {
        self.0.as_ptr()
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        // SAFETY: the pool came from `ggml_threadpool_new`, is freed once, and its context is gone:
        // it is declared, and so dropped, before the pool.
        unsafe { ggml_threadpool_free(self.0.as_ptr()) }
    }
}
