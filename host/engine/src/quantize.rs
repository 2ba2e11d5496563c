//! Making a smaller or faster copy of a model: the cheapest drafter is the target itself, re-quantized.

use std::ffi::CString;
use std::path::Path;
use std::str::FromStr;

use llama_cpp_sys_2 as sys;

use crate::error::LoadError;
use crate::runtime;

/// A text does not name a kind of quantization.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is none of q2_k, q3_k_m, q4_k_m, q8_0, f16")]
pub struct InvalidQuantization(pub String);

/// A kind of quantization, by llama.cpp's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantization {
    /// About 2.6 bits a weight: drafters.
    Q2K,
    /// About 3.9 bits a weight.
    Q3KM,
    /// About 4.8 bits a weight.
    Q4KM,
    /// 8.5 bits a weight.
    Q8,
    /// 16 bits a weight.
    F16,
}

impl FromStr for Quantization {
    type Err = InvalidQuantization;

    fn from_str(name: &str) -> Result<Self, InvalidQuantization> {
        match name.to_ascii_lowercase().as_str() {
            "q2_k" => Ok(Self::Q2K),
            "q3_k_m" => Ok(Self::Q3KM),
            "q4_k_m" => Ok(Self::Q4KM),
            "q8_0" => Ok(Self::Q8),
            "f16" => Ok(Self::F16),
            other => Err(InvalidQuantization(other.to_owned())),
        }
    }
}

/// Writes a copy of the GGUF at `source`, quantized anew, to `target`.
///
/// # Errors
///
/// [`LoadError`] when a path is unusable or llama.cpp refuses the file.
pub fn quantize(source: &Path, target: &Path, kind: Quantization) -> Result<(), LoadError> {
    runtime::backend()?;
    let (from, to) = (c_path(source)?, c_path(target)?);
    // SAFETY: returns plain data.
    let mut params = unsafe { sys::llama_model_quantize_default_params() };
    params.allow_requantize = true;
    params.ftype = match kind {
        Quantization::Q2K => sys::LLAMA_FTYPE_MOSTLY_Q2_K,
        Quantization::Q3KM => sys::LLAMA_FTYPE_MOSTLY_Q3_K_M,
        Quantization::Q4KM => sys::LLAMA_FTYPE_MOSTLY_Q4_K_M,
        Quantization::Q8 => sys::LLAMA_FTYPE_MOSTLY_Q8_0,
        Quantization::F16 => sys::LLAMA_FTYPE_MOSTLY_F16,
    };
    // SAFETY: both paths are C strings and `params` is initialized, all three outliving the call.
    let status = unsafe { sys::llama_model_quantize(from.as_ptr(), to.as_ptr(), &raw const params) };
    if status == 0 {
        return Ok(());
    }
    let reason = format!("llama.cpp could not quantize it (status {status})");
    Err(LoadError::Malformed { path: source.to_owned(), reason })
}

fn c_path(path: &Path) -> Result<CString, LoadError> {
    CString::new(path.as_os_str().as_encoded_bytes()).map_err(|_| LoadError::Unreadable {
        path: path.to_owned(),
        reason: "the path has a zero byte in it".to_owned(),
    })
}
