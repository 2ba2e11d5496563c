//! A llama.cpp context.

use std::marker::PhantomData;
use std::ptr::NonNull;

use llama_cpp_2::model::LlamaModel;
use llama_cpp_sys_2::{
    LLAMA_CONTEXT_TYPE_MTP, LLAMA_FLASH_ATTN_TYPE_DISABLED, LLAMA_FLASH_ATTN_TYPE_ENABLED,
    llama_attach_threadpool, llama_context, llama_context_default_params, llama_decode,
    llama_flash_attn_type, llama_free, llama_get_logits_ith, llama_get_memory, llama_init_from_model,
    llama_memory_seq_cp, llama_memory_seq_rm, llama_model, llama_model_n_embd_out, llama_n_rs_seq,
    llama_state_seq_flags, llama_state_seq_get_data_ext, llama_state_seq_get_size_ext,
    llama_state_seq_set_data_ext, llama_synchronize,
};

use crate::llama::batch::Batch;
use crate::llama::thread_pool::ThreadPool;

/// Flash attention, on systems where its result for a row can be made row-invariant (`reference.rs`).
const FLASH_ATTENTION: llama_flash_attn_type = if crate::pool::config::FLASH_ATTENTION {
    LLAMA_FLASH_ATTN_TYPE_ENABLED
} else {
    LLAMA_FLASH_ATTN_TYPE_DISABLED
};

unsafe extern "C" {
    /// See `shim.cpp`.
    fn tightwad_keep_hidden_states(context: *mut llama_context, only_outputs: bool);
    /// See `shim.cpp`.
    fn tightwad_hidden_state(context: *mut llama_context, row: i32) -> *const f32;
}

/// The part of a sequence's state that cannot be cut (`LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY` in `llama.h`).
const RECURRENT_PART: llama_state_seq_flags = 1;

/// The parameters of a context.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ContextParams {
    /// Tokens of all sequences together.
    pub tokens: u32,
    /// Number of sequences.
    pub sequences: u32,
    /// The maximum number of rows of a forward pass.
    pub rows: u32,
    /// The number of tokens that a sequence with a recurrent state may roll back. llama.cpp keeps one snapshot for each,
    /// where it supports the architecture; see [`LlamaContext::snapshots`].
    pub snapshots: u32,
    /// True for a context of the model's draft heads instead of its layers.
    pub heads: bool,
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
    hidden_size: usize,
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
            llama_params.n_rs_seq = params.snapshots;
            if params.heads {
                llama_params.ctx_type = LLAMA_CONTEXT_TYPE_MTP;
            }
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
        // SAFETY: the model is live.
        let hidden_size = unsafe { llama_model_n_embd_out(pointer) }.unsigned_abs() as usize;
        Some(Self { handle, _thread_pool: thread_pool, vocabulary_size, hidden_size, model: PhantomData })
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

    /// Makes each pass keep the hidden states of its rows: of those with logits, or of all.
    pub(crate) fn keep_hidden_states(&mut self, only_outputs: bool) {
        // SAFETY: the context is live.
        unsafe { tightwad_keep_hidden_states(self.handle.0.as_ptr(), only_outputs) }
    }

    /// The hidden state of row `row` of the last pass, before the output head. Empty if the pass did not keep it.
    pub(crate) fn hidden_state(&self, row: usize) -> &[f32] {
        // SAFETY: llama.cpp returns null for a row without a hidden state. Otherwise it returns a pointer to
        // `hidden_size` numbers, valid until the next pass, which borrows the context mutably.
        unsafe {
            let hidden = tightwad_hidden_state(self.handle.0.as_ptr(), row as i32);
            if hidden.is_null() { &[] } else { std::slice::from_raw_parts(hidden, self.hidden_size) }
        }
    }

    /// The number of activations of a hidden state.
    pub(crate) fn hidden_size(&self) -> usize {
        self.hidden_size
    }

    /// llama.cpp's pointer, valid as long as this context.
    pub(crate) fn as_ptr(&self) -> *mut llama_context {
        self.handle.0.as_ptr()
    }

    /// Removes the tokens of `sequence` from `position` on. Returns false if the model's state cannot be cut.
    pub(crate) fn truncate(&mut self, sequence: usize, position: usize) -> bool {
        // SAFETY: the context is live; llama.cpp checks sequence ids and positions.
        unsafe {
            let memory = llama_get_memory(self.handle.0.as_ptr());
            llama_memory_seq_rm(memory, sequence as i32, position as i32, -1)
        }
    }

    /// The number of snapshots of a recurrent state that llama.cpp keeps for each sequence: the states before the last
    /// tokens of a pass. 0: llama.cpp keeps none for this architecture.
    pub(crate) fn snapshots(&self) -> usize {
        // SAFETY: the context is live.
        unsafe { llama_n_rs_seq(self.handle.0.as_ptr()) as usize }
    }

    /// Copies the recurrent state of `sequence` into `memory`, without the cache of attention layers. `None` if
    /// llama.cpp cannot copy it.
    pub(crate) fn copy_recurrent_state(&mut self, sequence: usize, mut memory: Vec<u8>) -> Option<Vec<u8>> {
        let (context, sequence) = (self.handle.0.as_ptr(), sequence as i32);
        // SAFETY: the context is live, and llama.cpp writes at most `size` bytes.
        unsafe {
            let size = llama_state_seq_get_size_ext(context, sequence, RECURRENT_PART);
            memory.resize(size, 0);
            let written =
                llama_state_seq_get_data_ext(context, memory.as_mut_ptr(), size, sequence, RECURRENT_PART);
            (size > 0 && written == size).then_some(memory)
        }
    }

    /// Replaces the recurrent state of `sequence`. Returns false, and leaves an unknown state, if llama.cpp cannot.
    pub(crate) fn restore_recurrent_state(&mut self, sequence: usize, state: &[u8]) -> bool {
        // SAFETY: the context is live, and llama.cpp reads at most `state.len()` bytes.
        let read = unsafe {
            let context = self.handle.0.as_ptr();
            llama_state_seq_set_data_ext(
                context,
                state.as_ptr(),
                state.len(),
                sequence as i32,
                RECURRENT_PART,
            )
        };
        read == state.len()
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
