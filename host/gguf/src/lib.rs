//! Reads the headers of untrusted GGUF files (versions 2 and 3, little-endian).
//!
//! Invariant: memory and reading time are bounded for any header.
//!
//! [`Header::read`] accepts each header that can be parsed. [`Header::file_length`] also checks the tensors, as a
//! model's loader needs it.

mod error;
mod header;
mod reader;
mod tensor;
mod text;
mod value;

pub use error::GgufError;
pub use header::{Header, MAX_HEADER_BYTES};
pub use tensor::{TensorInfo, TensorType};
pub use text::{MAX_TEXT_BYTES, sanitize};
pub use value::{Array, ElementType, Value};
