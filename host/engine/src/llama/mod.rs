//! Handles of llama.cpp that the binding crate does not give: a context whose threads live as long as
//! it does, and the rows it is fed with.

pub(crate) mod batch;
pub(crate) mod context;
#[cfg(target_os = "linux")]
pub(crate) mod kernels;
#[cfg(target_os = "linux")]
pub(crate) mod lazy;
#[cfg(target_os = "linux")]
pub(crate) mod load;
pub(crate) mod model;
#[cfg(target_os = "linux")]
pub(crate) mod reference;
pub(crate) mod threads;
