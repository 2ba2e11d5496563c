//! Forward passes with ggml's reference implementation, and only as many threads as there are free cores.
//!
//! ggml has three implementations of flash attention. ggml chooses an implementation by the number of rows
//! and the length of the cache. The implementations round differently, so a verification of many rows would
//! give other results than one-token passes. A plan that requests the reference implementation always uses
//! the same one. llama.cpp has no option for such a plan. The linker therefore redirects its calls to this
//! module (`--wrap=ggml_graph_compute` in `.cargo/config.toml`).

use std::ffi::{c_int, c_void};

use crate::llama::cpu_load;

/// `struct ggml_cplan` of `ggml-cpu.h`.
#[repr(C)]
struct ComputePlan {
    work_size: usize,
    work: *mut u8,
    threads: c_int,
    pool: *mut c_void,
    abort: Option<unsafe extern "C" fn(*mut c_void) -> bool>,
    abort_data: *mut c_void,
    reference: bool,
}

unsafe extern "C" {
    fn __real_ggml_graph_compute(graph: *mut c_void, plan: *mut ComputePlan) -> c_int;
}

/// Computes `graph` with the reference implementation and at most the plan's number of threads.
///
/// # Safety
///
/// As for `ggml_graph_compute`: both pointers are live, and the plan was made for the graph.
// SAFETY: no other symbol has this name. The linker creates it only for the wrapped function.
#[unsafe(no_mangle)]
unsafe extern "C" fn __wrap_ggml_graph_compute(graph: *mut c_void, plan: *mut ComputePlan) -> c_int {
    // SAFETY: the caller passes a live plan with the layout of `ComputePlan`, and only the caller uses it.
    unsafe {
        (*plan).reference = true;
        (*plan).threads = cpu_load::thread_count((*plan).threads);
        __real_ggml_graph_compute(graph, plan)
    }
}
