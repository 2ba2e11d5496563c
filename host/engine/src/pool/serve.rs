//! The RPC server of llama.cpp.

use std::ffi::{CString, c_char};

use llama_cpp_sys_2::ggml_backend_dev_t;

use crate::error::LoadError;
use crate::pool::device::chosen;
use crate::runtime;

/// Major and minor version of the protocol (`ggml-rpc.h`): majors must be equal, and a server's minor
/// must not be newer than its client's.
pub const RPC_PROTOCOL: (u8, u8) = (7, 0);

unsafe extern "C" {
    fn ggml_backend_rpc_start_server(
        endpoint: *const c_char,
        cache_dir: *const c_char,
        n_threads: usize,
        n_devices: usize,
        devices: *mut ggml_backend_dev_t,
    );
}

/// Serves this machine's device at `endpoint` (`HOST:PORT`), one client after the other; returns only
/// when it cannot go on. There is no authentication: anyone who reaches the port uses the machine, so
/// it must be a loopback address behind something that lets clients in.
///
/// # Errors
///
/// [`LoadError::Runtime`] when llama.cpp does not start or gives up.
pub fn serve(endpoint: &str, threads: usize) -> Result<(), LoadError> {
    runtime::backend()?;
    let endpoint = CString::new(endpoint).map_err(|error| LoadError::Runtime(error.to_string()))?;
    let mut devices = [chosen()?];
    // SAFETY: the endpoint is a C string and the array has one device, both outliving the call; a null
    // cache directory means none.
    unsafe {
        let (count, devices) = (devices.len(), devices.as_mut_ptr());
        ggml_backend_rpc_start_server(endpoint.as_ptr(), std::ptr::null(), threads, count, devices);
    }
    Err(LoadError::Runtime("the RPC server gave up".to_owned()))
}
