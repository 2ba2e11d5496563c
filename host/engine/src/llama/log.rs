//! The errors that llama.cpp logs while it loads a model. Its functions return only a null pointer.

use std::cell::RefCell;
use std::ffi::{CStr, c_char, c_void};
use std::sync::OnceLock;

use llama_cpp_sys_2 as sys;

/// The maximum number of errors that are kept.
const MAX_ERRORS: usize = 16;

/// The callback before this module's, with its argument.
struct Previous(sys::ggml_log_callback, *mut c_void);

// SAFETY: the callback of `llama_cpp_2` may run on any thread, and its argument lives as long as the process.
unsafe impl Send for Previous {}
// SAFETY: as above.
unsafe impl Sync for Previous {}

static PREVIOUS: OnceLock<Previous> = OnceLock::new();

thread_local! {
    /// The errors of this thread; `None` outside of [`collect_errors`].
    static ERRORS: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// Passes each message of llama.cpp to [`collect_errors`] and to the callback that is set now.
pub(crate) fn install() {
    let mut previous = Previous(None, std::ptr::null_mut());
    // SAFETY: both pointers are writable. The new callback has no argument and may run on any thread.
    unsafe {
        sys::ggml_log_get(&raw mut previous.0, &raw mut previous.1);
        if PREVIOUS.set(previous).is_ok() {
            // This call also sets the callback of ggml.
            sys::llama_log_set(Some(forward), std::ptr::null_mut());
        }
    }
}

/// # Safety
///
/// `text` must be a C string.
unsafe extern "C" fn forward(level: sys::ggml_log_level, text: *const c_char, _: *mut c_void) {
    if level == sys::GGML_LOG_LEVEL_ERROR {
        // SAFETY: as the caller says.
        let line = unsafe { CStr::from_ptr(text) }.to_string_lossy();
        ERRORS.with_borrow_mut(|errors| {
            if let Some(errors) = errors
                && errors.len() < MAX_ERRORS
            {
                errors.push(line.trim().to_owned());
            }
        });
    }
    if let Some(Previous(Some(previous), argument)) = PREVIOUS.get() {
        // SAFETY: the callback and its argument were set together.
        unsafe { previous(level, text, *argument) }
    }
}

/// Runs `work` and returns the errors that llama.cpp logs on this thread during the work.
pub(crate) fn collect_errors<T>(work: impl FnOnce() -> T) -> (T, Vec<String>) {
    ERRORS.set(Some(Vec::new()));
    let result = work();
    (result, ERRORS.take().unwrap_or_default())
}

/// The cause among the errors of a load: the innermost one of `llama_model_load`, or else the first error.
pub(crate) fn load_error(errors: &[String]) -> String {
    const OUTER: &str = "error loading model";
    let outer = errors.iter().find_map(|error| error.split_once(OUTER).map(|(_, inner)| inner));
    let cause = match outer {
        // "error loading model: error loading model hyperparameters: CAUSE"
        Some(inner) => {
            let inner = inner.rsplit_once(OUTER).map_or(inner, |(_, inner)| inner);
            inner.split_once(": ").map_or(inner, |(_, cause)| cause)
        }
        None => errors.first().map_or("it gives no reason", String::as_str),
    };
    // llama.cpp's messages begin with the name of a function.
    let is_function = |name: &str| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    let cause = match cause.split_once(": ") {
        Some((name, rest)) if is_function(name) => rest,
        _ => cause,
    };
    tightwad_gguf::sanitize(cause.trim().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn load_error_is_the_innermost_cause() {
        let errors =
            |lines: &[&str]| load_error(&lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>());
        assert_eq!(
            errors(&[
                "llama_model_load: error loading model: error loading model architecture: unknown model architecture: 'x'",
                "llama_model_load_from_file_impl: failed to load model",
            ]),
            "unknown model architecture: 'x'"
        );
        let shape = "check_tensor_dims: tensor 'a' has wrong shape; expected 1, got 2";
        assert_eq!(errors(&[&format!("llama_model_load: error loading model: {shape}")]), &shape[19..]);
        assert_eq!(errors(&["gguf_init: failed"]), "failed");
        assert_eq!(errors(&[]), "it gives no reason");
    }
}
