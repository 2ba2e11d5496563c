//! Defects of a GGUF's header.

use std::io;

use thiserror::Error;

/// Largest number of tensors. Old files of models with hundreds of experts have about 50,000.
pub(crate) const MAX_TENSORS: u64 = 1 << 18;
/// Largest number of metadata keys. Models have fewer than a hundred.
pub(crate) const MAX_KEYS: u64 = 1 << 14;
/// Largest number of dimensions of a tensor. Source: ggml's `GGML_MAX_DIMS`.
pub(crate) const MAX_DIMENSIONS: u32 = 4;
/// Largest alignment, in bytes.
pub(crate) const MAX_ALIGNMENT: u64 = 1 << 20;

/// The file has the signature of a GGUF, but its header is broken.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum GgufError {
    /// The file ends within its header.
    #[error("the file ends within its header: the file is incomplete")]
    Truncated,
    /// The header is too long.
    #[error("the header is longer than 1 GiB: one of its lengths is wrong")]
    HeaderTooLong,
    /// The header lists too many tensors.
    #[error("the header lists {0} tensors; at most {MAX_TENSORS} are supported")]
    TooManyTensors(u64),
    /// The header lists too many keys.
    #[error("the header lists {0} metadata keys; at most {MAX_KEYS} are supported")]
    TooManyKeys(u64),
    /// A tensor has too many dimensions.
    #[error("tensor {name:?} has {dimensions} dimensions; at most {MAX_DIMENSIONS} are possible")]
    TooManyDimensions {
        /// The tensor's name.
        name: String,
        /// The number in the header.
        dimensions: u32,
    },
    /// A tensor begins after the end of the file.
    #[error("tensor {0:?} lies behind the end of the file: the file is incomplete")]
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
    /// A key or a tensor's name occurs twice.
    #[error("{0:?} occurs twice")]
    Duplicate(String),
    /// A tensor has a type of values that no version of ggml reads.
    #[error("tensor {name:?} has values of unknown type {kind}")]
    UnknownTensorType {
        /// The tensor's name.
        name: String,
        /// The type's number in the header.
        kind: u32,
    },
    /// The sizes of a tensor are impossible.
    #[error("tensor {name:?} has impossible sizes: {sizes:?}")]
    BadShape {
        /// The tensor's name.
        name: String,
        /// Its sizes.
        sizes: Vec<u64>,
    },
    /// A tensor does not follow the tensor before it.
    #[error("tensor {name:?} has offset {offset}; its place is {expected}")]
    BadOffset {
        /// The tensor's name.
        name: String,
        /// The offset in the header.
        offset: u64,
        /// The end of the tensor before it, with padding.
        expected: u64,
    },
    /// The file cannot be read.
    #[error(transparent)]
    Read(io::Error),
}
