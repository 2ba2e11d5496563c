//! Defects of a GGUF's header.

use std::io;

use thiserror::Error;

/// Largest number of tensors. Mixtures of hundreds of experts in old files have some 50,000.
pub(crate) const MAX_TENSORS: u64 = 1 << 18;
/// Largest number of dimensions of a tensor, by ggml.
pub(crate) const MAX_DIMENSIONS: u32 = 4;
/// Largest alignment, in bytes.
pub(crate) const MAX_ALIGNMENT: u64 = 1 << 20;

/// The file says that it is a GGUF, but it is broken.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum GgufError {
    /// It ends within its header.
    #[error("the file ends within its header; fetch it again")]
    Ends,
    /// Its header goes on and on.
    #[error("the header is longer than 1 GiB")]
    Long,
    /// Too many tensors.
    #[error("the header speaks of {0} tensors; at most {MAX_TENSORS} are supported")]
    Tensors(u64),
    /// A tensor of too many dimensions.
    #[error("tensor {name:?} has {dimensions} dimensions; at most {MAX_DIMENSIONS} are possible")]
    Dimensions {
        /// The tensor.
        name: String,
        /// What the header says.
        dimensions: u32,
    },
    /// A tensor's data are not there.
    #[error("tensor {0:?} lies behind the end of the file; fetch the file again")]
    Behind(String),
    /// A value of a type that nobody knows.
    #[error("key {key:?} has a value of unknown type {kind}")]
    Kind {
        /// The key.
        key: String,
        /// What the header says.
        kind: u32,
    },
    /// Arrays in arrays in arrays.
    #[error("key {0:?} has arrays in arrays in arrays")]
    Deep(String),
    /// No alignment that tensors could have.
    #[error("general.alignment is {0}; a power of two up to {MAX_ALIGNMENT} is possible")]
    Alignment(u64),
    /// The file cannot be read.
    #[error(transparent)]
    Read(io::Error),
}
