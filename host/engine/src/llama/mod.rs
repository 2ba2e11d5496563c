//! llama.cpp handles that the binding crate does not provide: a context that owns its threads, and its batch.

pub(crate) mod batch;
pub(crate) mod context;
#[cfg(target_os = "linux")]
pub(crate) mod cpu_load;
pub(crate) mod heads;
#[cfg(target_os = "linux")]
pub(crate) mod kernels;
#[cfg(target_os = "linux")]
pub(crate) mod lazy_buffer;
pub(crate) mod log;
pub(crate) mod model;
#[cfg(target_os = "linux")]
pub(crate) mod reference;
pub(crate) mod thread_pool;
