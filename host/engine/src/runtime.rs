//! Process-wide set-up of llama.cpp.

use std::sync::OnceLock;

use llama_cpp_2::llama_backend::LlamaBackend;
use llama_cpp_2::{LogOptions, send_logs_to_tracing};

use crate::error::LoadError;

/// Chooses kernels whose result for a row does not depend on the batch. Call it first thing in
/// `main`, before any thread is started; later calls have no effect on kernels already chosen.
pub fn prepare() {
    // SAFETY: callers do this while the process has one thread, as documented, so that no other
    // thread reads the environment meanwhile.
    unsafe { std::env::set_var("GGML_CPU_TILED_MM", "0") };
}

/// Ends the process at once, whatever its threads do. Nothing is flushed and no destructor runs, not even those of
/// C++'s static objects as with [`std::process::exit`]: ggml's free what a thread may be computing with.
pub fn exit(code: i32) -> ! {
    // SAFETY: `_exit` may be called at any time, by any thread.
    unsafe { libc::_exit(code) }
}

/// Processor cores that this process may use: the threads of a forward pass unless told otherwise.
#[must_use]
pub fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The llama.cpp backend, started once a process.
pub(crate) fn backend() -> Result<&'static LlamaBackend, LoadError> {
    static BACKEND: OnceLock<Result<LlamaBackend, String>> = OnceLock::new();
    BACKEND
        .get_or_init(|| {
            send_logs_to_tracing(LogOptions::default());
            LlamaBackend::init().map_err(|error| error.to_string())
        })
        .as_ref()
        .map_err(|error| LoadError::Runtime(error.clone()))
}

/// Runs `work` while no other model computes on this machine's processor: two thread pools on the
/// same cores slow each other down far more than taking turns does.
pub(crate) fn on_processor<T>(work: impl FnOnce() -> T) -> T {
    // Tokio's mutex is fair: whoever waits longest is next, so that no model starves.
    static PROCESSOR: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    let _turn = PROCESSOR.blocking_lock();
    work()
}
