//! Flash attention over a KV cache in half precision.

pub(crate) mod kernel;
pub(crate) mod op;
