//! Loading a model.

use std::ffi::CString;
use std::path::Path;
use std::ptr::NonNull;

use llama_cpp_2::model::LlamaModel;
use llama_cpp_sys_2 as sys;

use crate::error::LoadError;
use crate::runtime;

/// What all models are loaded with.
pub(crate) fn parameters() -> sys::llama_model_params {
    // SAFETY: returns a plain value.
    let mut params = unsafe { sys::llama_model_default_params() };
    // ggml's layouts for one kind of processor (AMX) come with kernels whose result for a row depends on how many
    // rows share the batch. Compiled by GCC 12, they also load a tile configuration that was never written.
    params.use_extra_bufts = false;
    params
}

/// Loads the GGUF file at `path`.
///
/// # Safety
///
/// Everything that `params` points to must live until this returns; devices and buffer types as long as the model.
pub(crate) unsafe fn load(path: &Path, params: sys::llama_model_params) -> Result<LlamaModel, LoadError> {
    runtime::backend()?;
    let malformed = |reason: &str| LoadError::Malformed { path: path.to_owned(), reason: reason.to_owned() };
    let file = CString::new(path.to_string_lossy().as_bytes())
        .map_err(|_| malformed("its name has a zero byte in it"))?;
    // SAFETY: the name lives as long as this function; the rest is the caller's promise.
    let loaded = unsafe { sys::llama_model_load_from_file(file.as_ptr(), params) };
    let model =
        NonNull::new(loaded).ok_or_else(|| malformed("llama.cpp could not load it; its log says more"))?;
    // SAFETY: by its `repr`, `LlamaModel` is a transparent wrapper of a non-null pointer that it owns, and no other
    // code frees this one.
    Ok(unsafe { std::mem::transmute::<NonNull<sys::llama_model>, LlamaModel>(model) })
}
