//! Caches that use memory only as sequences grow.
//!
//! llama.cpp fills a new cache with zeros, so the system must provide all of its memory immediately. Fresh
//! memory from the system already contains zeros. So this module discards the pages of large CPU buffers
//! instead of filling them. A discarded page returns as zeros at its next use. llama.cpp has no option for
//! such buffers. The linker therefore redirects its calls to this module (`--wrap=ggml_backend_buffer_clear`
//! in `.cargo/config.toml`).

use std::ffi::c_void;

use llama_cpp_sys_2 as sys;
use rustix::mm::{Advice, madvise};
use rustix::param::page_size;

/// ggml still fills buffers below this size.
const MIN_LAZY_BYTES: usize = 1 << 20;

unsafe extern "C" {
    fn __real_ggml_backend_buffer_clear(buffer: sys::ggml_backend_buffer_t, value: u8);
}

/// Fills `buffer` with `value`.
///
/// # Safety
///
/// As for `ggml_backend_buffer_clear`: the buffer is live, and only the caller uses it.
// SAFETY: no other symbol has this name. The linker creates it only for the wrapped function.
#[unsafe(no_mangle)]
unsafe extern "C" fn __wrap_ggml_backend_buffer_clear(buffer: sys::ggml_backend_buffer_t, value: u8) {
    // SAFETY: the caller's promises hold. Buffers of the CPU's own type are anonymous memory of this process.
    // The system may discard complete pages of it; `discard_pages` fills the edges.
    unsafe {
        let can_discard = !buffer.is_null()
            && value == 0
            && sys::ggml_backend_buffer_get_type(buffer) == sys::ggml_backend_cpu_buffer_type();
        let size = if can_discard { sys::ggml_backend_buffer_get_size(buffer) } else { 0 };
        if size < MIN_LAZY_BYTES || !discard_pages(sys::ggml_backend_buffer_get_base(buffer).cast(), size) {
            __real_ggml_backend_buffer_clear(buffer, value);
        }
    }
}

/// Zeroes `size` bytes from `base` without touching complete pages. Returns false if the system refuses.
///
/// # Safety
///
/// The bytes are private anonymous memory, and only the caller uses them.
unsafe fn discard_pages(base: *mut u8, size: usize) -> bool {
    let page = page_size();
    if base.is_null() {
        return false;
    }
    let head = base.align_offset(page);
    let page_bytes = size.saturating_sub(head) / page * page;
    // SAFETY: the pages and the edges around them lie within the memory.
    unsafe {
        let first = base.add(head);
        if madvise(first.cast::<c_void>(), page_bytes, Advice::LinuxDontNeed).is_err() {
            return false;
        }
        base.write_bytes(0, head);
        first.add(page_bytes).write_bytes(0, size - head - page_bytes);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn discarded_memory_reads_as_zero_to_the_last_byte() {
        let mut memory = vec![7_u8; MIN_LAZY_BYTES + 12_345];
        let (base, size) = (memory.as_mut_ptr(), memory.len() - 10);
        // SAFETY: the memory belongs to the vector and is anonymous.
        let discarded = unsafe { discard_pages(base.wrapping_add(3), size) };
        assert!(discarded);
        assert_eq!(memory[..3], [7; 3]);
        assert!(memory[3..3 + size].iter().all(|byte| *byte == 0));
        assert_eq!(memory[3 + size..], [7; 7]);
    }
}
