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
use crate::llama::threads::Threads;

/// Flash attention, where its result for a row can be kept from depending on the pass (`reference.rs`).
const FLASH_ATTENTION: llama_flash_attn_type = if crate::pool::config::FLASH_ATTENTION {
    LLAMA_FLASH_ATTN_TYPE_ENABLED
} else {
    LLAMA_FLASH_ATTN_TYPE_DISABLED
};

/// The size of a context.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ContextParams {
    /// Tokens in all sequences together.
    pub tokens: u32,
    /// Sequences.
    pub sequences: u32,
    /// Most rows of a forward pass.
    pub rows: u32,
    /// Threads of a forward pass, where other programs leave as many processors.
    pub threads: i32,
}

/// A context, for one thread at a time. It lives as long as its model is borrowed.
pub(crate) struct Context<'a> {
    // Dropped before the threads it uses.
    llama: Owned,
    _threads: Threads,
    vocabulary: usize,
    model: PhantomData<&'a LlamaModel>,
}

/// Frees the context.
struct Owned(NonNull<llama_context>);

// SAFETY: a context is bound to no thread; `Owned` is neither cloned nor shared.
unsafe impl Send for Owned {}

impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: it came from `llama_init_from_model` and is freed once.
        unsafe { llama_free(self.0.as_ptr()) }
    }
}

/// Why a forward pass failed, as llama.cpp numbers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DecodeError {
    #[error("there is no room in the cache")]
    NoRoom,
    #[error("code {0}")]
    Other(i32),
}

impl<'a> Context<'a> {
    /// A context with a cache of 16-bit numbers of its own for each sequence; `None` where there is
    /// no memory for it.
    pub(crate) fn new(model: &'a LlamaModel, wanted: ContextParams) -> Option<Self> {
        let threads = Threads::new(wanted.threads)?;
        // SAFETY: `LlamaModel` is a transparent wrapper of the model's pointer, by its `repr`.
        let pointer = unsafe { *std::ptr::from_ref(model).cast::<*mut llama_model>() };
        // SAFETY: the parameters are plain data; the model outlives the context, which borrows it.
        let llama = unsafe {
            let mut params = llama_context_default_params();
            params.n_ctx = wanted.tokens;
            params.n_batch = wanted.rows;
            params.n_ubatch = wanted.rows;
            params.n_seq_max = wanted.sequences;
            params.n_threads = wanted.threads;
            params.n_threads_batch = wanted.threads;
            // Where a token lies in a shared cache would change how sums are rounded.
            params.kv_unified = false;
            // A window's cache is a ring otherwise, and where its tokens lie would do the same.
            params.swa_full = true;
            params.flash_attn_type = FLASH_ATTENTION;
            llama_init_from_model(pointer, params)
        };
        let llama = Owned(NonNull::new(llama)?);
        // SAFETY: both are live, and the threads outlive the context.
        unsafe { llama_attach_threadpool(llama.0.as_ptr(), threads.as_ptr(), threads.as_ptr()) };
        let vocabulary = model.n_vocab().unsigned_abs() as usize;
        Some(Self { llama, _threads: threads, vocabulary, model: PhantomData })
    }

    /// One forward pass; returns when it is done.
    pub(crate) fn decode(&mut self, batch: &mut Batch) -> Result<(), DecodeError> {
        // SAFETY: the batch's arrays live through both calls, and the context is borrowed mutably.
        let code = unsafe {
            let code = llama_decode(self.llama.0.as_ptr(), batch.raw());
            llama_synchronize(self.llama.0.as_ptr());
            code
        };
        match code {
            0 => Ok(()),
            1 => Err(DecodeError::NoRoom),
            other => Err(DecodeError::Other(other)),
        }
    }

    /// The logits of row `row` of the last pass, one a vocabulary entry; empty when they were not
    /// asked for.
    pub(crate) fn logits(&self, row: usize) -> &[f32] {
        // SAFETY: llama.cpp answers null for rows without logits, else a pointer to one number a
        // vocabulary entry, valid until the next pass, which borrows the context mutably.
        unsafe {
            let logits = llama_get_logits_ith(self.llama.0.as_ptr(), row as i32);
            if logits.is_null() { &[] } else { std::slice::from_raw_parts(logits, self.vocabulary) }
        }
    }

    /// Forgets everything of `sequence` from `position` on; false where the model's state cannot be
    /// cut.
    pub(crate) fn truncate(&mut self, sequence: usize, position: usize) -> bool {
        // SAFETY: the context is live; sequence ids and positions are checked by llama.cpp.
        unsafe {
            let memory = llama_get_memory(self.llama.0.as_ptr());
            llama_memory_seq_rm(memory, sequence as i32, position as i32, -1)
        }
    }

    /// Makes the cache of sequence `to` that of `from`.
    pub(crate) fn copy(&mut self, from: usize, to: usize) {
        // SAFETY: as above; both are whole sequences, which is what separate caches can copy.
        unsafe {
            let memory = llama_get_memory(self.llama.0.as_ptr());
            llama_memory_seq_cp(memory, from as i32, to as i32, -1, -1);
        }
    }
}
