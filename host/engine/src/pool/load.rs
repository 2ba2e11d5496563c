//! Loads a model whose layers lie on workers.

use std::ffi::{CString, c_char, c_void};
use std::path::Path;
use std::ptr::{null, null_mut};

use llama_cpp_2::model::LlamaModel;
use llama_cpp_sys_2 as sys;

use crate::error::LoadError;
use crate::llama::model::{self, default_params};
use crate::pool::config::{MAX_WORKERS, PoolConfig};
use crate::pool::device::gpu;
use crate::runtime;

unsafe extern "C" {
    fn ggml_backend_rpc_add_server(endpoint: *const c_char) -> sys::ggml_backend_reg_t;
}

/// A callback that receives the loaded share, from 0 to 1.
pub(crate) type Progress = Box<dyn FnMut(f32)>;

/// Loads the GGUF file at `path` onto the workers of `pool`.
pub(crate) fn load(path: &Path, pool: &PoolConfig, mut progress: Progress) -> Result<LlamaModel, LoadError> {
    runtime::llama_backend()?;
    let devices = DeviceList::for_pool(pool)?;
    let overrides = TensorOverrides::for_pool(pool, &devices)?;
    let mut params = default_params();
    params.devices = devices.list.as_ptr().cast_mut();
    params.tensor_split = devices.split.as_ptr();
    params.n_gpu_layers = devices.layers;
    params.tensor_buft_overrides = overrides.list.as_ptr();
    params.progress_callback = Some(report_progress);
    params.progress_callback_user_data = (&raw mut progress).cast();
    // SAFETY: the devices and buffer types live as long as the process. The arrays and strings live as long
    // as this function.
    unsafe { model::load(path, params) }
}

/// # Safety
///
/// `data` must point to a [`Progress`].
unsafe extern "C" fn report_progress(loaded_share: f32, data: *mut c_void) -> bool {
    // SAFETY: `load` passes its own callback, which outlives the call.
    let progress = unsafe { &mut *data.cast::<Progress>() };
    progress(loaded_share);
    true
}

/// The devices in the order of their layers, for llama.cpp.
struct DeviceList {
    /// The list ends with a null device.
    list: Vec<sys::ggml_backend_dev_t>,
    /// Number of layers per device, padded with zeros to llama.cpp's maximum number of devices.
    split: Vec<f32>,
    /// Number of layers on devices. The output head counts as a layer.
    layers: i32,
    /// Index of the first worker in `list`.
    first_worker: usize,
}

impl DeviceList {
    fn for_pool(pool: &PoolConfig) -> Result<Self, LoadError> {
        if pool.workers.len() > MAX_WORKERS {
            let count = pool.workers.len();
            let reason = format!("a pool can have at most {MAX_WORKERS} workers, not {count}");
            return Err(LoadError::Runtime(reason));
        }
        // SAFETY: the function returns a constant.
        let max_devices = unsafe { sys::llama_max_devices() };
        let (mut list, mut split) = (Vec::new(), Vec::new());
        // Without a GPU, the layers without a device are the first ones: the host's layers.
        let gpu = gpu();
        let host_on_gpu = !gpu.is_null() && pool.host_layers > 0;
        if host_on_gpu {
            list.push(gpu);
            split.push(pool.host_layers);
        }
        let first_worker = list.len();
        for worker in &pool.workers {
            list.push(worker_device(&worker.endpoint)?);
            split.push(worker.layers);
        }
        // The output head follows the last layer.
        if let Some(last) = split.last_mut() {
            *last += 1;
        }
        let layers = i32::try_from(split.iter().sum::<u32>()).unwrap_or(i32::MAX);
        list.push(null_mut());
        let mut split: Vec<f32> = split.into_iter().map(|layers| layers as f32).collect();
        split.resize(max_devices.max(split.len()), 0.0);
        Ok(Self { list, split, layers, first_worker })
    }
}

/// The device of an RPC server.
fn worker_device(endpoint: &str) -> Result<sys::ggml_backend_dev_t, LoadError> {
    let name = c_string(endpoint)?;
    let no_device = || LoadError::Runtime(format!("the worker at {endpoint} has no device"));
    // SAFETY: the name is a C string. A registry that is not null lives as long as the process.
    unsafe {
        let registry = ggml_backend_rpc_add_server(name.as_ptr());
        if registry.is_null() || sys::ggml_backend_reg_dev_count(registry) == 0 {
            return Err(no_device());
        }
        let device = sys::ggml_backend_reg_dev_get(registry, 0);
        // llama.cpp closes a connection to a worker when no backend uses it. While it loads a model, it would
        // therefore open a new connection for each request. This backend is never freed, so the connection
        // stays open.
        if sys::ggml_backend_dev_init(device, null()).is_null() {
            return Err(no_device());
        }
        Ok(device)
    }
}

/// Tensors that are not placed with their layer.
struct TensorOverrides {
    /// The list ends with a null pattern.
    list: Vec<sys::llama_model_tensor_buft_override>,
    // The strings that `list` points to.
    _patterns: Vec<CString>,
}

/// Tensors of the output head. llama.cpp makes a tied head from the embeddings.
const OUTPUT_PATTERNS: [&str; 2] = ["^output", "^token_embd"];

impl TensorOverrides {
    fn for_pool(pool: &PoolConfig, devices: &DeviceList) -> Result<Self, LoadError> {
        // SAFETY: the function returns a constant.
        let host_buffers = unsafe { sys::ggml_backend_cpu_buffer_type() };
        let mut buffer_types = Vec::new();
        for tensor_override in &pool.tensor_overrides {
            let device =
                tensor_override.worker.and_then(|worker| devices.list.get(devices.first_worker + worker));
            // SAFETY: the device is live.
            let buffers =
                device.map_or(host_buffers, |device| unsafe { sys::ggml_backend_dev_buffer_type(*device) });
            buffer_types.push((c_string(&tensor_override.pattern)?, buffers));
        }
        if pool.output_on_host {
            for pattern in OUTPUT_PATTERNS {
                buffer_types.push((c_string(pattern)?, host_buffers));
            }
        }
        let entry = |(pattern, buft): &(CString, _)| sys::llama_model_tensor_buft_override {
            pattern: pattern.as_ptr(),
            buft: *buft,
        };
        let end = sys::llama_model_tensor_buft_override { pattern: null(), buft: null_mut() };
        let list = buffer_types.iter().map(entry).chain([end]).collect();
        Ok(Self { list, _patterns: buffer_types.into_iter().map(|(pattern, _)| pattern).collect() })
    }
}

fn c_string(text: &str) -> Result<CString, LoadError> {
    CString::new(text).map_err(|_| LoadError::Runtime(format!("'{text}' contains a zero byte")))
}
