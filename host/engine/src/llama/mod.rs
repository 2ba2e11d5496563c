//! Handles of llama.cpp that the binding crate does not give: a context whose threads live as long as
//! it does, and the rows it is fed with.

mod batch;
mod context;
#[cfg(target_os = "linux")]
mod kernels;
#[cfg(target_os = "linux")]
mod lazy;
#[cfg(target_os = "linux")]
mod load;
#[cfg(target_os = "linux")]
mod reference;
mod threads;

pub(crate) use batch::Batch;
pub(crate) use context::{Context, ContextParams};
