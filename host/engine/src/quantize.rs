//! Quantizes a model again. The cheapest drafter is a re-quantized copy of the target.

use std::ffi::CString;
use std::path::Path;
use std::str::FromStr;

use llama_cpp_sys_2 as sys;

use crate::error::LoadError;
use crate::file::content::check_model;
use crate::file::level::Level;
use crate::file::model_file::ModelFile;
use crate::file::trial::ensure_passed;
use crate::llama::log;
use crate::runtime;

/// A text that does not name a quantization type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a quantization type. Use q2_k, q3_k_m, q4_k_m, q8_0 or f16")]
pub struct InvalidQuantization(pub String);

/// A quantization type, by llama.cpp's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantization {
    /// About 2.6 bits per weight, for drafters.
    Q2K,
    /// About 3.9 bits per weight.
    Q3KM,
    /// About 4.8 bits per weight.
    Q4KM,
    /// 8.5 bits per weight.
    Q8,
    /// 16 bits per weight.
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

/// Quantizes the GGUF file `input` again and writes the result to `output`.
///
/// # Errors
///
/// [`LoadError`] if a path is unusable or llama.cpp rejects the file.
pub fn quantize(input: &Path, output: &Path, quantization: Quantization) -> Result<(), LoadError> {
    let file = ModelFile::open(input)?;
    check_model(&file)?;
    ensure_passed(&file, Level::Structure, 0)?;
    runtime::llama_backend()?;
    let (input_path, output_path) = (c_path(input)?, c_path(output)?);
    // SAFETY: the function returns plain data.
    let mut params = unsafe { sys::llama_model_quantize_default_params() };
    params.allow_requantize = true;
    params.ftype = match quantization {
        Quantization::Q2K => sys::LLAMA_FTYPE_MOSTLY_Q2_K,
        Quantization::Q3KM => sys::LLAMA_FTYPE_MOSTLY_Q3_K_M,
        Quantization::Q4KM => sys::LLAMA_FTYPE_MOSTLY_Q4_K_M,
        Quantization::Q8 => sys::LLAMA_FTYPE_MOSTLY_Q8_0,
        Quantization::F16 => sys::LLAMA_FTYPE_MOSTLY_F16,
    };
    // SAFETY: both paths are C strings and `params` is initialized; all three outlive the call.
    let quantize =
        || unsafe { sys::llama_model_quantize(input_path.as_ptr(), output_path.as_ptr(), &raw const params) };
    match log::collect_errors(quantize) {
        (0, _) => Ok(()),
        (_, errors) => Err(LoadError::Refused { path: input.to_owned(), reason: log::load_error(&errors) }),
    }
}

fn c_path(path: &Path) -> Result<CString, LoadError> {
    CString::new(path.as_os_str().as_encoded_bytes()).map_err(|_| LoadError::Unreadable {
        path: path.to_owned(),
        reason: "the path contains a zero byte".to_owned(),
    })
}
