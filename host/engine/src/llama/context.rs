//! A llama.cpp context.

use std::marker::PhantomData;
use std::ptr::NonNull;

use llama_cpp_2::model::LlamaModel;
use llama_cpp_sys_2::{
    LLAMA_FLASH_ATTN_TYPE_DISABLED, LLAMA_FLASH_ATTN_TYPE_ENABLED, llama_attach_threadpool, llama_context,
    llama_context_default_params, llama_decode, llama_flash_attn_type, llama_free, llama_get_logits_ith,
    llama_get_memory, llama_init_from_model, llama_memory_seq_cp, llama_memory_seq_rm, llama_model,
    llama_synchronize,
};

use crate::llama::batch::Batch;
use crate::llama::thread_pool::ThreadPool;

/// Flash attention, on systems where its result for a row can be made row-invariant (`reference.rs`).
const FLASH_ATTENTION: llama_flash_attn_type = if crate::pool::config::FLASH_ATTENTION {
    LLAMA_FLASH_ATTN_TYPE_ENABLED
} else {
    LLAMA_FLASH_ATTN_TYPE_DISABLED
};

/// The parameters of a context.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ContextParams {
    /// Tokens of all sequences together.
    pub tokens: u32,
    /// Number of sequences.
    pub sequences: u32,
    /// The maximum number of rows of a forward pass.
    pub rows: u32,
    /// The maximum number of threads of a forward pass. The load of other programs can reduce the number of
    /// threads.
    pub threads: i32,
}

/// A context, for use by one thread at a time. The context borrows its model.
pub(crate) struct LlamaContext<'a> {
    // Dropped before the threads that the context uses.
    handle: ContextHandle,
    _thread_pool: ThreadPool,
    vocabulary_size: usize,
    model: PhantomData<&'a LlamaModel>,
}

/// Owns a llama.cpp context and frees it.
struct ContextHandle(NonNull<llama_context>);

// SAFETY: a context is not bound to a thread; `ContextHandle` is neither cloned nor shared.
unsafe impl Send for ContextHandle {}

impl Drop for ContextHandle {
    fn drop(&mut self) {
        // SAFETY: the pointer came from `llama_init_from_model` and is freed once.
        unsafe { llama_free(self.0.as_ptr()) }
    }
}

/// llama.cpp's error of a forward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DecodeError {
    #[error("the KV cache is full")]
    CacheFull,
    #[error("code {0}")]
    Other(i32),
}

impl<'a> LlamaContext<'a> {
    /// A context with a separate 16-bit KV cache for each sequence. `None` if there is not enough memory.
    pub(crate) fn new(model: &'a LlamaModel, params: ContextParams) -> Option<Self> {
        let thread_pool = ThreadPool::new(params.threads)?;
        // SAFETY: by its `repr`, `LlamaModel` is a transparent wrapper of the model's pointer.
        let pointer = unsafe { *std::ptr::from_ref(model).cast::<*mut llama_model>() };
        // SAFETY: the parameters are plain data; the model outlives the context, which borrows it.
        let context = unsafe {
            let mut llama_params = llama_context_default_params();
            llama_params.n_ctx = params.tokens;
            llama_params.n_batch = params.rows;
            llama_params.n_ubatch = params.rows;
            llama_params.n_seq_max = params.sequences;
            llama_params.n_threads = params.threads;
            llama_params.n_threads_batch = params.threads;
            // In a unified cache, the position of a token's cell would change the rounding of sums.
            llama_params.kv_unified = false;
            // A sliding-window cache is a ring by default, where the position of a cell has the same effect.
            llama_params.swa_full = true;
            llama_params.flash_attn_type = FLASH_ATTENTION;
            llama_init_from_model(pointer, llama_params)
        };
        let handle = ContextHandle(NonNull::new(context)?);
        // SAFETY: both are live, and the threads outlive the context.
        unsafe { llama_attach_threadpool(handle.0.as_ptr(), thread_pool.as_ptr(), thread_pool.as_ptr()) };
        let vocabulary_size = model.n_vocab().unsigned_abs() as usize;
        Some(Self { handle, _thread_pool: thread_pool, vocabulary_size, model: PhantomData })
    }

    /// Runs one forward pass and waits for its end.
    pub(crate) fn decode(&mut self, batch: &mut Batch) -> Result<(), DecodeError> {
        // SAFETY: the batch's arrays live through both calls, and the context is borrowed mutably.
        let code = unsafe {
            let code = llama_decode(self.handle.0.as_ptr(), batch.as_llama_batch());
            llama_synchronize(self.handle.0.as_ptr());
            code
        };
        match code {
            0 => Ok(()),
            1 => Err(DecodeError::CacheFull),
            other => Err(DecodeError::Other(other)),
        }
    }

    /// The logits of row `row` of the last pass, one per vocabulary entry. Empty if the batch did not request
    /// them.
    pub(crate) fn logits(&self, row: usize) -> &[f32] {
        // SAFETY: llama.cpp returns null for rows without logits. Otherwise it returns a pointer to one
        // number per vocabulary entry, valid until the next pass, which borrows the context mutably.
        unsafe {
            let logits = llama_get_logits_ith(self.handle.0.as_ptr(), row as i32);
            if logits.is_null() { &[] } else { std::slice::from_raw_parts(logits, self.vocabulary_size) }
        }
    }

    /// Removes the tokens of `sequence` from `position` on. Returns false if the model's state cannot be cut.
    pub(crate) fn truncate(&mut self, sequence: usize, position: usize) -> bool {
        // SAFETY: the context is live; llama.cpp checks sequence ids and positions.
        unsafe {
            let memory = llama_get_memory(self.handle.0.as_ptr());
            llama_memory_seq_rm(memory, sequence as i32, position as i32, -1)
        }
    }

    /// Copies the cache of sequence `from` to sequence `to`.
    pub(crate) fn copy_sequence(&mut self, from: usize, to: usize) {
        // SAFETY: as above; separate caches can copy only complete sequences, and both are complete.
        unsafe {
            let memory = llama_get_memory(self.handle.0.as_ptr());
            llama_memory_seq_cp(memory, from as i32, to as i32, -1, -1);
        }
    }
}
