//! Loading a model whose layers lie on workers.

use std::ffi::{CString, c_char, c_void};
use std::path::Path;
use std::ptr::{null, null_mut};

use llama_cpp_2::model::LlamaModel;
use llama_cpp_sys_2 as sys;

use crate::error::LoadError;
use crate::llama::model::{self, parameters};
use crate::pool::config::{MAX_WORKERS, PoolConfig};
use crate::pool::device::gpu;
use crate::runtime;

unsafe extern "C" {
    fn ggml_backend_rpc_add_server(endpoint: *const c_char) -> sys::ggml_backend_reg_t;
}

/// Told how much is loaded, from 0 to 1.
pub(crate) type Progress = Box<dyn FnMut(f32)>;

/// Loads the GGUF at `path` over the workers of `pool`.
pub(crate) fn load(path: &Path, pool: &PoolConfig, mut progress: Progress) -> Result<LlamaModel, LoadError> {
    runtime::backend()?;
    let devices = Devices::of(pool)?;
    let overrides = Overrides::of(pool, &devices)?;
    let mut params = parameters();
    params.devices = devices.list.as_ptr().cast_mut();
    params.tensor_split = devices.split.as_ptr();
    params.n_gpu_layers = devices.layers;
    params.tensor_buft_overrides = overrides.list.as_ptr();
    params.progress_callback = Some(report);
    params.progress_callback_user_data = (&raw mut progress).cast();
    // SAFETY: the devices and buffer types live as long as the process, the arrays and texts as long as this
    // function.
    unsafe { model::load(path, params) }
}

/// # Safety
///
/// `data` must point to a [`Progress`].
unsafe extern "C" fn report(done: f32, data: *mut c_void) -> bool {
    // SAFETY: `load` passes its own, which outlives the call.
    let progress = unsafe { &mut *data.cast::<Progress>() };
    progress(done);
    true
}

/// Devices in the order of the layers, as llama.cpp wants them.
struct Devices {
    /// Ends with a null.
    list: Vec<sys::ggml_backend_dev_t>,
    /// Layers of each device, one an entry, with zeros up to llama.cpp's limit.
    split: Vec<f32>,
    /// Layers on devices, the output head counted as one.
    layers: i32,
    /// The first worker's place in `list`.
    first_worker: usize,
}

impl Devices {
    fn of(pool: &PoolConfig) -> Result<Self, LoadError> {
        if pool.workers.len() > MAX_WORKERS {
            let count = pool.workers.len();
            let reason = format!("a pool has at most {MAX_WORKERS} workers, not {count}");
            return Err(LoadError::Runtime(reason));
        }
        // SAFETY: returns a constant.
        let most = unsafe { sys::llama_max_devices() };
        let (mut list, mut split) = (Vec::new(), Vec::new());
        // Without a GPU, the layers that are on no device are the first ones: those here.
        let gpu = gpu();
        let here_on_gpu = !gpu.is_null() && pool.here > 0;
        if here_on_gpu {
            list.push(gpu);
            split.push(pool.here);
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
        split.resize(most.max(split.len()), 0.0);
        Ok(Self { list, split, layers, first_worker })
    }
}

/// The device behind an RPC server.
fn worker_device(endpoint: &str) -> Result<sys::ggml_backend_dev_t, LoadError> {
    let name = c_string(endpoint)?;
    let none = || LoadError::Runtime(format!("the worker at {endpoint} has no device"));
    // SAFETY: the name is a C string; a registry that is not null lives as long as the process.
    unsafe {
        let registry = ggml_backend_rpc_add_server(name.as_ptr());
        if registry.is_null() || sys::ggml_backend_reg_dev_count(registry) == 0 {
            return Err(none());
        }
        let device = sys::ggml_backend_reg_dev_get(registry, 0);
        // llama.cpp closes its connection to a worker when nothing uses it, and while a model is loaded
        // opens one again for every question. This use of it never ends, as the model's own does not.
        if sys::ggml_backend_dev_init(device, null()).is_null() {
            return Err(none());
        }
        Ok(device)
    }
}

/// Tensors that lie elsewhere than their layer.
struct Overrides {
    /// Ends with a null pattern.
    list: Vec<sys::llama_model_tensor_buft_override>,
    // What the list points to.
    _patterns: Vec<CString>,
}

/// The output head; where it is tied, llama.cpp makes it of the embeddings.
const OUTPUT: [&str; 2] = ["^output", "^token_embd"];

impl Overrides {
    fn of(pool: &PoolConfig, devices: &Devices) -> Result<Self, LoadError> {
        // SAFETY: returns a constant.
        let here = unsafe { sys::ggml_backend_cpu_buffer_type() };
        let mut wanted = Vec::new();
        for pin in &pool.pins {
            let device = pin.worker.and_then(|worker| devices.list.get(devices.first_worker + worker));
            // SAFETY: the device is live.
            let buffers = device.map_or(here, |device| unsafe { sys::ggml_backend_dev_buffer_type(*device) });
            wanted.push((c_string(&pin.pattern)?, buffers));
        }
        if pool.output_here {
            for pattern in OUTPUT {
                wanted.push((c_string(pattern)?, here));
            }
        }
        let entry = |(pattern, buft): &(CString, _)| sys::llama_model_tensor_buft_override {
            pattern: pattern.as_ptr(),
            buft: *buft,
        };
        let end = sys::llama_model_tensor_buft_override { pattern: null(), buft: null_mut() };
        let list = wanted.iter().map(entry).chain([end]).collect();
        Ok(Self { list, _patterns: wanted.into_iter().map(|(pattern, _)| pattern).collect() })
    }
}

fn c_string(text: &str) -> Result<CString, LoadError> {
    CString::new(text).map_err(|_| LoadError::Runtime(format!("'{text}' has a zero byte in it")))
}
