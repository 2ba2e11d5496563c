//! Process-wide setup of llama.cpp.

use std::sync::OnceLock;

use llama_cpp_2::llama_backend::LlamaBackend;
use llama_cpp_2::{LogOptions, send_logs_to_tracing};

use crate::error::LoadError;

/// Makes ggml choose kernels whose result for a row does not depend on the batch. Call this function first in
/// `main`, before any thread starts. Later calls do not affect kernels that ggml has already chosen.
pub fn select_row_invariant_kernels() {
    // SAFETY: the documentation asks callers to do this while the process has one thread, so no other thread
    // reads the environment.
    unsafe { std::env::set_var("GGML_CPU_TILED_MM", "0") };
}

/// Ends the process immediately, without flushing and without destructors. [`std::process::exit`] would run
/// the destructors of C++'s static objects. ggml's destructors would free memory that a thread may still
/// compute with.
pub fn exit(code: i32) -> ! {
    // SAFETY: any thread may call `_exit` at any time.
    unsafe { libc::_exit(code) }
}

/// CPU cores that this process may use: the default number of threads of a forward pass.
#[must_use]
pub fn cpu_count() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The llama.cpp backend, started once per process.
pub(crate) fn llama_backend() -> Result<&'static LlamaBackend, LoadError> {
    static BACKEND: OnceLock<Result<LlamaBackend, String>> = OnceLock::new();
    BACKEND
        .get_or_init(|| {
            send_logs_to_tracing(LogOptions::default());
            crate::llama::log::install();
            LlamaBackend::init().map_err(|error| error.to_string())
        })
        .as_ref()
        .map_err(|error| LoadError::Runtime(error.clone()))
}

/// Runs `work` while no other model computes on this machine's CPU. Two thread pools on the same cores slow
/// each other down far more than waiting does.
pub(crate) fn with_cpu_lock<T>(work: impl FnOnce() -> T) -> T {
    // Tokio's mutex is fair: the longest waiting model is next, so no model starves.
    static CPU: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    let _guard = CPU.blocking_lock();
    work()
}
