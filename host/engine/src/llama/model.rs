//! Loads models.

use std::ffi::CString;
use std::path::Path;
use std::ptr::NonNull;

use llama_cpp_2::model::LlamaModel;
use llama_cpp_sys_2 as sys;

use crate::error::LoadError;
use crate::llama::log;
use crate::runtime;

/// The parameters that all models share.
pub(crate) fn default_params() -> sys::llama_model_params {
    // SAFETY: the function returns a plain value.
    let mut params = unsafe { sys::llama_model_default_params() };
    // ggml's weight layouts for AMX come with kernels whose result for a row depends on the number of rows in
    // the batch. With GCC 12, these kernels also load a tile configuration that was never written.
    params.use_extra_bufts = false;
    // Draft heads are mapped like other weights, and take no memory before their use.
    params.load_mtp = true;
    params
}

/// Loads the GGUF file at `path`.
///
/// # Safety
///
/// The objects that `params` points to must live until this function returns. Devices and buffer types must
/// live as long as the model.
pub(crate) unsafe fn load(path: &Path, params: sys::llama_model_params) -> Result<LlamaModel, LoadError> {
    runtime::llama_backend()?;
    let refused = |reason: String| LoadError::Refused { path: path.to_owned(), reason };
    let file = CString::new(path.as_os_str().as_encoded_bytes())
        .map_err(|_| refused("its path contains a zero byte".to_owned()))?;
    // SAFETY: the path lives as long as this function; the caller ensures the rest.
    let load = || unsafe { sys::llama_model_load_from_file(file.as_ptr(), params) };
    let (loaded, errors) = log::collect_errors(load);
    let model = NonNull::new(loaded).ok_or_else(|| refused(log::load_error(&errors)))?;
    // SAFETY: by its `repr`, `LlamaModel` is a transparent wrapper of a non-null pointer that it owns. No
    // other code frees this pointer.
    Ok(unsafe { std::mem::transmute::<NonNull<sys::llama_model>, LlamaModel>(model) })
}
