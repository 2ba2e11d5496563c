//! The threads of forward passes. Without a pool, ggml starts new threads for every pass. OpenMP's threads
//! spin while they wait, so several models in one process slow each other down many times over.

use std::ptr::NonNull;

use llama_cpp_sys_2::{
    ggml_threadpool, ggml_threadpool_free, ggml_threadpool_new, ggml_threadpool_params_default,
};

/// A pool of threads that sleep between passes.
pub(crate) struct ThreadPool(NonNull<ggml_threadpool>);

// SAFETY: only the context that owns the pool uses it, and one thread at a time uses this context.
unsafe impl Send for ThreadPool {}

impl ThreadPool {
    /// A pool of `count` threads, including the caller's thread. `None` if the system provides none.
    pub(crate) fn new(count: i32) -> Option<Self> {
        // SAFETY: the parameters are plain data and valid for the call.
        let pool = unsafe {
            let mut params = ggml_threadpool_params_default(count);
            // No spinning between passes: other work needs the cores.
            params.poll = 0;
            ggml_threadpool_new(&raw mut params)
        };
        NonNull::new(pool).map(Self)
    }

    pub(crate) fn as_ptr(&self) -> *mut ggml_threadpool {
        self.0.as_ptr()
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        // SAFETY: the pool came from `ggml_threadpool_new` and is freed once. Its context is declared before
        // it, and so dropped before it.
        unsafe { ggml_threadpool_free(self.0.as_ptr()) }
    }
}
