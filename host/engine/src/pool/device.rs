//! The compute device of a machine, and its memory bandwidth.

use std::ffi::CStr;
use std::time::{Duration, Instant};

use llama_cpp_sys_2 as sys;

use crate::error::LoadError;
use crate::memory::available_bytes;
use crate::runtime;

/// The device that a worker lends: a GPU if llama.cpp was built for one, otherwise the CPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// llama.cpp's name, such as `CPU` or `CUDA0`.
    pub name: String,
    /// A description of the hardware.
    pub description: String,
    /// Free memory, in bytes.
    pub free_bytes: u64,
    /// Total memory, in bytes.
    pub total_bytes: u64,
    /// True for a GPU.
    pub is_gpu: bool,
}

/// The device of this machine.
///
/// # Errors
///
/// [`LoadError::Runtime`] if llama.cpp does not start.
pub fn device() -> Result<Device, LoadError> {
    runtime::llama_backend()?;
    let device = default_device()?;
    let (mut free, mut total) = (0, 0);
    // SAFETY: the device is live for the lifetime of the process, and both numbers are writable. The names
    // are C strings that live as long as the device.
    unsafe {
        sys::ggml_backend_dev_memory(device, &raw mut free, &raw mut total);
        let is_gpu = !gpu().is_null();
        Ok(Device {
            name: c_str_to_string(sys::ggml_backend_dev_name(device)),
            description: c_str_to_string(sys::ggml_backend_dev_description(device)),
            // For the CPU, llama.cpp counts only unused memory as free, without the page cache.
            free_bytes: if is_gpu { free as u64 } else { available_bytes().unwrap_or(free as u64) },
            total_bytes: total as u64,
            is_gpu,
        })
    }
}

/// # Safety
///
/// `text` must point to a C string.
unsafe fn c_str_to_string(text: *const std::ffi::c_char) -> String {
    // SAFETY: as the caller says.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// The first GPU; null if there is none.
pub(crate) fn gpu() -> sys::ggml_backend_dev_t {
    // SAFETY: reads the device registry, which is initialized by then.
    unsafe { sys::ggml_backend_dev_by_type(sys::GGML_BACKEND_DEVICE_TYPE_GPU) }
}

/// The device that this machine lends: the GPU, or the CPU.
pub(crate) fn default_device() -> Result<sys::ggml_backend_dev_t, LoadError> {
    let gpu = gpu();
    if !gpu.is_null() {
        return Ok(gpu);
    }
    // SAFETY: as above.
    let processor = unsafe { sys::ggml_backend_dev_by_type(sys::GGML_BACKEND_DEVICE_TYPE_CPU) };
    if processor.is_null() {
        return Err(LoadError::Runtime("llama.cpp found no device on this machine".to_owned()));
    }
    Ok(processor)
}

/// Memory bandwidth: the bytes of weights that the device reads per second in a one-token pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryBandwidth(pub u64);

/// Rows and columns of the measured matrix. This matrix is larger than the caches of most CPUs.
const MATRIX_SIZE: i64 = 8192;
/// The minimum duration of the measurement.
const MIN_MEASURING_TIME: Duration = Duration::from_millis(200);

/// Measures the device with a product of a matrix and a vector in Q4_K, the most common weight format.
///
/// # Errors
///
/// [`LoadError::Runtime`] if the device is unusable.
pub fn measure_memory_bandwidth(threads: usize) -> Result<MemoryBandwidth, LoadError> {
    runtime::llama_backend()?;
    let failed = |reason: &str| LoadError::Runtime(format!("cannot measure the device: {reason}"));
    let threads = i32::try_from(threads).unwrap_or(1).max(1);
    // SAFETY: every handle is checked before use and freed once, in reverse order. The tensors belong to
    // `context` and their memory to `buffer`; both outlive the passes.
    unsafe {
        let backend = sys::ggml_backend_dev_init(default_device()?, std::ptr::null());
        if backend.is_null() {
            return Err(failed("it does not start"));
        }
        if sys::ggml_backend_is_cpu(backend) {
            sys::ggml_backend_cpu_set_n_threads(backend, threads);
        }
        let measured = measure(backend);
        sys::ggml_backend_free(backend);
        measured.map(MemoryBandwidth).ok_or_else(|| failed("it has not enough memory"))
    }
}

/// # Safety
///
/// `backend` must be live.
unsafe fn measure(backend: sys::ggml_backend_t) -> Option<u64> {
    // SAFETY: as in `measure_memory_bandwidth`.
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
        let weights = sys::ggml_new_tensor_2d(context, sys::GGML_TYPE_Q4_K, MATRIX_SIZE, MATRIX_SIZE);
        let vector = sys::ggml_new_tensor_1d(context, sys::GGML_TYPE_F32, MATRIX_SIZE);
        let graph = sys::ggml_new_graph(context);
        sys::ggml_build_forward_expand(graph, sys::ggml_mul_mat(context, weights, vector));
        let buffer = sys::ggml_backend_alloc_ctx_tensors(context, backend);
        let bytes_per_second = (!buffer.is_null()).then(|| {
            // Zeros: other bytes might be slow to compute with, such as subnormal numbers.
            sys::ggml_backend_buffer_clear(buffer, 0);
            sys::ggml_backend_graph_compute(backend, graph);
            let (start, mut passes) = (Instant::now(), 0);
            while start.elapsed() < MIN_MEASURING_TIME {
                sys::ggml_backend_graph_compute(backend, graph);
                passes += 1;
            }
            let bytes = sys::ggml_nbytes(weights) as f64 * f64::from(passes);
            sys::ggml_backend_buffer_free(buffer);
            (bytes / start.elapsed().as_secs_f64()) as u64
        });
        sys::ggml_free(context);
        bytes_per_second
    }
}
