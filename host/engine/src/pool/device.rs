//! What a machine computes with, and how fast.

use std::ffi::CStr;
use std::time::{Duration, Instant};

use llama_cpp_sys_2 as sys;

use crate::error::LoadError;
use crate::memory::available;
use crate::runtime;

/// The device that a worker lends: a GPU where llama.cpp was built for one, else the processor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// llama.cpp's name, such as `CPU` or `CUDA0`.
    pub name: String,
    /// What it is.
    pub description: String,
    /// Free memory, in bytes.
    pub free: u64,
    /// Memory in all, in bytes.
    pub total: u64,
    /// True for a GPU.
    pub gpu: bool,
}

/// The device of this machine.
///
/// # Errors
///
/// [`LoadError::Runtime`] when llama.cpp does not start.
pub fn device() -> Result<Device, LoadError> {
    runtime::backend()?;
    let device = chosen()?;
    let (mut free, mut total) = (0, 0);
    // SAFETY: the device is live for the whole process, both places are writable, and the texts are C
    // strings that live as long as the device.
    unsafe {
        sys::ggml_backend_dev_memory(device, &raw mut free, &raw mut total);
        let gpu = !gpu().is_null();
        Ok(Device {
            name: text(sys::ggml_backend_dev_name(device)),
            description: text(sys::ggml_backend_dev_description(device)),
            // llama.cpp counts only what is unused.
            free: if gpu { free as u64 } else { available().unwrap_or(free as u64) },
            total: total as u64,
            gpu,
        })
    }
}

/// # Safety
///
/// `text` must be a C string.
unsafe fn text(text: *const std::ffi::c_char) -> String {
    // SAFETY: as the caller says.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// The first GPU; null where there is none.
pub(crate) fn gpu() -> sys::ggml_backend_dev_t {
    // SAFETY: looks into the registry, which is set up by then.
    unsafe { sys::ggml_backend_dev_by_type(sys::GGML_BACKEND_DEVICE_TYPE_GPU) }
}

/// What is lent: the GPU, or the processor.
pub(crate) fn chosen() -> Result<sys::ggml_backend_dev_t, LoadError> {
    let gpu = gpu();
    if !gpu.is_null() {
        return Ok(gpu);
    }
    // SAFETY: as above.
    let processor = unsafe { sys::ggml_backend_dev_by_type(sys::GGML_BACKEND_DEVICE_TYPE_CPU) };
    if processor.is_null() {
        return Err(LoadError::Runtime("llama.cpp finds no device on this machine".to_owned()));
    }
    Ok(processor)
}

/// Bytes of weights read in a second while one token is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Speed(pub u64);

/// Sides of the matrix that is measured: larger than the caches of most processors.
const SIDE: i64 = 8192;
/// How long to measure.
const TIME: Duration = Duration::from_millis(200);

/// Measures the device: matrix times vector in Q4_K, the most common kind of weights.
///
/// # Errors
///
/// [`LoadError::Runtime`] when the device cannot be used.
pub fn measure_speed(threads: usize) -> Result<Speed, LoadError> {
    runtime::backend()?;
    let failed = |what: &str| LoadError::Runtime(format!("cannot measure the device: {what}"));
    let threads = i32::try_from(threads).unwrap_or(1).max(1);
    // SAFETY: every handle is checked before use and freed once, in the reverse order; the tensors
    // belong to `context`, their memory to `buffer`, and both outlive the passes.
    unsafe {
        let backend = sys::ggml_backend_dev_init(chosen()?, std::ptr::null());
        if backend.is_null() {
            return Err(failed("it does not start"));
        }
        if sys::ggml_backend_is_cpu(backend) {
            sys::ggml_backend_cpu_set_n_threads(backend, threads);
        }
        let measured = measure(backend);
        sys::ggml_backend_free(backend);
        measured.map(Speed).ok_or_else(|| failed("it has no memory left"))
    }
}

/// # Safety
///
/// `backend` must be live.
unsafe fn measure(backend: sys::ggml_backend_t) -> Option<u64> {
    // SAFETY: as in `measure_speed`.
    unsafe {
        let size = sys::ggml_tensor_overhead() * 8 + sys::ggml_graph_overhead();
        let context = sys::ggml_init(sys::ggml_init_params {
            mem_size: size,
            mem_buffer: std::ptr::null_mut(),
            no_alloc: true,
        });
        if context.is_null() {
            return None;
        }
        let weights = sys::ggml_new_tensor_2d(context, sys::GGML_TYPE_Q4_K, SIDE, SIDE);
        let vector = sys::ggml_new_tensor_1d(context, sys::GGML_TYPE_F32, SIDE);
        let graph = sys::ggml_new_graph(context);
        sys::ggml_build_forward_expand(graph, sys::ggml_mul_mat(context, weights, vector));
        let buffer = sys::ggml_backend_alloc_ctx_tensors(context, backend);
        let speed = (!buffer.is_null()).then(|| {
            // Zeros: other bytes might be numbers that are slow to compute with.
            sys::ggml_backend_buffer_clear(buffer, 0);
            sys::ggml_backend_graph_compute(backend, graph);
            let (start, mut passes) = (Instant::now(), 0);
            while start.elapsed() < TIME {
                sys::ggml_backend_graph_compute(backend, graph);
                passes += 1;
            }
            let bytes = sys::ggml_nbytes(weights) as f64 * f64::from(passes);
            sys::ggml_backend_buffer_free(buffer);
            (bytes / start.elapsed().as_secs_f64()) as u64
        });
        sys::ggml_free(context);
        speed
    }
}
