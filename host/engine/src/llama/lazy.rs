//! Caches that take memory only as sequences grow.
//!
//! llama.cpp fills a new cache with zeros, which makes the system find memory for all of it at once. Fresh memory
//! of the system is zero already, so large buffers of this machine's memory are given back instead of being
//! filled: their pages return, as zeros, when they are touched. llama.cpp has no switch for this, so the linker
//! leads its calls here (`--wrap=ggml_backend_buffer_clear` in `.cargo/config.toml`).

use std::ffi::c_void;

use llama_cpp_sys_2 as sys;
use rustix::mm::{Advice, madvise};
use rustix::param::page_size;

/// Buffers below this size are filled as before.
const MIN_BYTES: usize = 1 << 20;

unsafe extern "C" {
    fn __real_ggml_backend_buffer_clear(buffer: sys::ggml_backend_buffer_t, value: u8);
}

/// Fills `buffer` with `value`.
///
/// # Safety
///
/// That of `ggml_backend_buffer_clear`: the buffer is live, and the caller alone uses it.
// SAFETY: no other symbol has this name; the linker makes it only for the wrapped function.
#[unsafe(no_mangle)]
unsafe extern "C" fn __wrap_ggml_backend_buffer_clear(buffer: sys::ggml_backend_buffer_t, value: u8) {
    // SAFETY: as the caller says. Buffers of the CPU's own type are anonymous memory of this process, whose whole
    // pages the system may take back; what lies around them is filled.
    unsafe {
        let own = !buffer.is_null()
            && value == 0
            && sys::ggml_backend_buffer_get_type(buffer) == sys::ggml_backend_cpu_buffer_type();
        let size = if own { sys::ggml_backend_buffer_get_size(buffer) } else { 0 };
        if size < MIN_BYTES || !give_back(sys::ggml_backend_buffer_get_base(buffer).cast(), size) {
            __real_ggml_backend_buffer_clear(buffer, value);
        }
    }
}

/// Makes `size` bytes from `base` zero without touching whole pages; false where the system refuses.
///
/// # Safety
///
/// The bytes are private anonymous memory, and the caller alone uses them.
unsafe fn give_back(base: *mut u8, size: usize) -> bool {
    let page = page_size();
    if base.is_null() {
        return false;
    }
    let before = base.align_offset(page);
    let pages = size.saturating_sub(before) / page * page;
    // SAFETY: the pages lie within the memory, and so do the edges around them.
    unsafe {
        let first = base.add(before);
        if madvise(first.cast::<c_void>(), pages, Advice::LinuxDontNeed).is_err() {
            return false;
        }
        base.write_bytes(0, before);
        first.add(pages).write_bytes(0, size - before - pages);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_reads_as_zero_to_the_last_byte() {
        let mut memory = vec![7_u8; MIN_BYTES + 12_345];
        let (base, size) = (memory.as_mut_ptr(), memory.len() - 10);
        // SAFETY: the memory is the vector's own, and anonymous.
        let given = unsafe { give_back(base.wrapping_add(3), size) };
        assert!(given);
        assert_eq!(memory[..3], [7; 3]);
        assert!(memory[3..3 + size].iter().all(|byte| *byte == 0));
        assert_eq!(memory[3 + size..], [7; 7]);
    }
}
