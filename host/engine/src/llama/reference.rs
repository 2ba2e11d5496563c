//! Forward passes by ggml's reference implementation, with as many threads as there are processors free.
//!
//! ggml computes flash attention in one of three ways, by how many rows a pass has and how long the
//! cache is; they round differently, so that a verification of many rows would not give what one row
//! gives. A plan that asks for the reference implementation takes one way for all of them. llama.cpp has
//! no switch for it that a context reaches, so the linker leads its calls here
//! (`--wrap=ggml_graph_compute` in `.cargo/config.toml`).

use std::ffi::{c_int, c_void};

use crate::llama::load;

/// `struct ggml_cplan` of `ggml-cpu.h`.
#[repr(C)]
struct Plan {
    work_size: usize,
    work: *mut u8,
    threads: c_int,
    pool: *mut c_void,
    abort: Option<unsafe extern "C" fn(*mut c_void) -> bool>,
    abort_data: *mut c_void,
    reference: bool,
}

unsafe extern "C" {
    fn __real_ggml_graph_compute(graph: *mut c_void, plan: *mut Plan) -> c_int;
}

/// Computes `graph` by the reference implementation, with the plan's threads at most.
///
/// # Safety
///
/// That of `ggml_graph_compute`: both are live and of one making.
// SAFETY: no other symbol has this name; the linker makes it only for the wrapped function.
#[unsafe(no_mangle)]
unsafe extern "C" fn __wrap_ggml_graph_compute(graph: *mut c_void, plan: *mut Plan) -> c_int {
    // SAFETY: the caller gives a live plan that nobody else uses, laid out as `Plan` is.
    unsafe {
        (*plan).reference = true;
        (*plan).threads = load::threads((*plan).threads);
        __real_ggml_graph_compute(graph, plan)
    }
}
