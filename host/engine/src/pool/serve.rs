//! llama.cpp's RPC server.

use std::ffi::{CString, c_char};

use llama_cpp_sys_2::ggml_backend_dev_t;

use crate::error::LoadError;
use crate::pool::device::default_device;
use crate::runtime;

/// Major and minor version of the RPC protocol (`ggml-rpc.h`). The major versions must be equal. The server's
/// minor version must not be newer than the client's.
pub const RPC_PROTOCOL_VERSION: (u8, u8) = (7, 0);

unsafe extern "C" {
    fn ggml_backend_rpc_start_server(
        endpoint: *const c_char,
        cache_dir: *const c_char,
        n_threads: usize,
        n_devices: usize,
        devices: *mut ggml_backend_dev_t,
    );
}

/// Serves this machine's device at `endpoint` (`HOST:PORT`), one client after the other. Returns only if the
/// server ends. There is no authentication: all clients that reach the port can use the machine. So
/// `endpoint` must be a loopback address behind a server that authenticates clients.
///
/// # Errors
///
/// [`LoadError::Runtime`] if llama.cpp does not start, or if the server ends.
pub fn serve(endpoint: &str, threads: usize) -> Result<(), LoadError> {
    runtime::llama_backend()?;
    let endpoint = CString::new(endpoint).map_err(|error| LoadError::Runtime(error.to_string()))?;
    let mut devices = [default_device()?];
    // SAFETY: the endpoint is a C string and the array has one device; both outlive the call. A null cache
    // directory means no cache.
    unsafe {
        let (count, devices) = (devices.len(), devices.as_mut_ptr());
        ggml_backend_rpc_start_server(endpoint.as_ptr(), std::ptr::null(), threads, count, devices);
    }
    Err(LoadError::Runtime("the RPC server ended".to_owned()))
}
