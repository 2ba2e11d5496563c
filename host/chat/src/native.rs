//! Calls the C++ side.

use std::ffi::{CStr, CString, c_char};
use std::sync::Mutex;

use tightwad_core::sync::lock;

unsafe extern "C" {
    fn tightwad_chat(request: *const c_char) -> *mut c_char;
    fn tightwad_chat_free(answer: *mut c_char);
}

/// Answers the JSON object `request` with a JSON object. The C++ side recurses, so the caller's stack must be large.
/// `None`: there is no memory for the answer, or `request` contains a zero byte.
pub(crate) fn answer(request: &str) -> Option<String> {
    // The C++ side keeps compiled templates, and serves one call at a time.
    static CALL: Mutex<()> = Mutex::new(());
    let request = CString::new(request).ok()?;
    let _turn = lock(&CALL);
    // SAFETY: the request is a live, terminated string, and the lock makes this the only call.
    let answer = unsafe { tightwad_chat(request.as_ptr()) };
    if answer.is_null() {
        return None;
    }
    // SAFETY: the C++ side returns a terminated string, which stays unchanged until it is freed.
    let text = unsafe { CStr::from_ptr(answer) }.to_string_lossy().into_owned();
    // SAFETY: the pointer came from `tightwad_chat` and is freed once.
    unsafe { tightwad_chat_free(answer) };
    Some(text)
}
