//! Defects of a GGUF's header.

use std::io;

use thiserror::Error;

/// Largest number of tensors. Old files of models with hundreds of experts have about 50,000.
pub(crate) const MAX_TENSORS: u64 = 1 << 18;
/// Largest number of dimensions of a tensor. Source: ggml's `GGML_MAX_DIMS`.
pub(crate) const MAX_DIMENSIONS: u32 = 4;
/// Largest alignment, in bytes.
pub(crate) const MAX_ALIGNMENT: u64 = 1 << 20;

/// The file has the signature of a GGUF, but its header is broken.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum GgufError {
    /// The file ends within its header.
    #[error("the file ends within its header; fetch it again")]
    Truncated,
    /// The header is too long.
    #[error("the header is longer than 1 GiB")]
    HeaderTooLong,
    /// The header lists too many tensors.
    #[error("the header lists {0} tensors; at most {MAX_TENSORS} are supported")]
    TooManyTensors(u64),
    /// A tensor has too many dimensions.
    #[error("tensor {name:?} has {dimensions} dimensions; at most {MAX_DIMENSIONS} are possible")]
    TooManyDimensions {
        /// The tensor's name.
        name: String,
        /// The number in the header.
        dimensions: u32,
    },
    /// A tensor begins after the end of the file.
    #[error("tensor {0:?} lies behind the end of the file; fetch the file again")]
    TensorPastEnd(String),
    /// A value has an unknown type.
    #[error("key {key:?} has a value of unknown type {kind}")]
    UnknownType {
        /// The key.
        key: String,
        /// The type's number in the header.
        kind: u32,
    },
    /// Arrays are nested too deeply.
    #[error("key {0:?} has arrays in arrays in arrays")]
    NestedTooDeep(String),
    /// The alignment is not a supported power of two.
    #[error("general.alignment is {0}; a power of two up to {MAX_ALIGNMENT} is possible")]
    BadAlignment(u64),
    /// The file cannot be read.
    #[error(transparent)]
    Read(io::Error),
}
