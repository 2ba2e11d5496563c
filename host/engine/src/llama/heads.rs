//! Draft heads: the layers after a model's last one that predict further tokens ("multi-token prediction", MTP;
//! DeepSeek-V3, arXiv:2412.19437, section 2.2). A head reads the token at a position and the hidden state of the position
//! before it. Its own hidden state takes that place for the next position.

use std::ptr::NonNull;

use llama_cpp_2::model::LlamaModel;
use llama_cpp_sys_2::{
    LLAMA_PROCESS_TYPE_DECODE, llama_batch_ext, llama_batch_ext_add_token, llama_batch_ext_clear,
    llama_batch_ext_free, llama_batch_ext_init, llama_batch_ext_set_embd_token,
    llama_batch_ext_set_output_logits, llama_batch_ext_set_pos, llama_embd, llama_process, llama_synchronize,
};
use tightwad_core::TokenId;

use crate::llama::context::{ContextParams, LlamaContext};
use crate::runtime;

/// A token with the hidden state of the position before it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeadRow<'a> {
    pub slot: usize,
    pub position: usize,
    pub token: TokenId,
    pub hidden: &'a [f32],
    pub logits: bool,
}

/// A context of a model's heads, with a cache of its own.
pub(crate) struct HeadContext<'a> {
    batch: HeadBatch,
    context: LlamaContext<'a>,
    shares_cpu: bool,
}

/// Owns a batch of rows with hidden states.
struct HeadBatch(NonNull<llama_batch_ext>);

// SAFETY: a batch is not bound to a thread; `HeadBatch` is neither cloned nor shared.
unsafe impl Send for HeadBatch {}

impl Drop for HeadBatch {
    fn drop(&mut self) {
        // SAFETY: the pointer came from `llama_batch_ext_init` and is freed once.
        unsafe { llama_batch_ext_free(self.0.as_ptr()) }
    }
}

impl<'a> HeadContext<'a> {
    /// A context of the heads of `model`. `shares_cpu`: its passes do not run beside those of other models. `None` if the
    /// model has no heads, or if there is not enough memory.
    pub(crate) fn new(model: &'a LlamaModel, params: ContextParams, shares_cpu: bool) -> Option<Self> {
        let mut context = LlamaContext::new(model, ContextParams { heads: true, snapshots: 0, ..params })?;
        context.keep_hidden_states(true);
        // SAFETY: the context is live.
        let batch = NonNull::new(unsafe { llama_batch_ext_init(context.as_ptr()) })?;
        Some(Self { batch: HeadBatch(batch), context, shares_cpu })
    }

    /// Runs one forward pass over `rows`. Returns false if llama.cpp refuses it.
    pub(crate) fn forward<'r>(&mut self, rows: impl Iterator<Item = HeadRow<'r>>) -> bool {
        let batch = self.batch.0.as_ptr();
        // SAFETY: the batch is live.
        unsafe { llama_batch_ext_clear(batch) };
        // SAFETY: the batch is live and copies the hidden state and the position.
        let added = rows.into_iter().all(|row| unsafe {
            let hidden = llama_embd { data: row.hidden.as_ptr(), n_rows: 1, n_embd: row.hidden.len() };
            let index = llama_batch_ext_add_token(batch, row.slot as i32, row.token.cast_signed());
            index >= 0
                && llama_batch_ext_set_pos(batch, index, &(row.position as i32))
                && llama_batch_ext_set_embd_token(batch, index, hidden)
                && llama_batch_ext_set_output_logits(batch, index, row.logits)
        });
        let context = self.context.as_ptr();
        // SAFETY: both are live, and the context is borrowed mutably.
        let decode = || unsafe {
            let code = llama_process(context, LLAMA_PROCESS_TYPE_DECODE, batch);
            llama_synchronize(context);
            code == 0
        };
        added && if self.shares_cpu { runtime::with_cpu_lock(decode) } else { decode() }
    }

    /// The logits of row `row` of the last pass.
    pub(crate) fn logits(&self, row: usize) -> &[f32] {
        self.context.logits(row)
    }

    /// The head's hidden state of row `row` of the last pass, which must have logits. Empty if there is none.
    pub(crate) fn hidden_state(&self, row: usize) -> &[f32] {
        self.context.hidden_state(row)
    }

    /// Removes the tokens of `slot` from `position` on.
    pub(crate) fn truncate(&mut self, slot: usize, position: usize) -> bool {
        self.context.truncate(slot, position)
    }

    /// Copies the cache of slot `from` to slot `to`.
    pub(crate) fn copy(&mut self, from: usize, to: usize) {
        self.context.copy_sequence(from, to);
    }
}
