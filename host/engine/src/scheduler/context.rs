//! A llama.cpp context and the one batch it is fed with.

use std::num::NonZeroU32;

use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::context::params::{KvCacheType, LlamaContextParams};
use llama_cpp_2::llama_batch::LlamaBatch;

use crate::weights::llama;
use crate::{EngineConfig, LoadError, SessionError, TokenId, Weights, runtime};

/// Most rows of one forward pass.
pub(super) const MAX_ROWS: usize = 512;

/// One row of a forward pass.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    pub slot: usize,
    pub position: usize,
    pub token: TokenId,
    pub logits: bool,
}

/// The context; on a processor, passes of different models take turns.
pub(super) struct Context<'a> {
    llama: LlamaContext<'a>,
    batch: LlamaBatch<'static>,
    takes_turns: bool,
    pub(super) vocabulary: u32,
}

impl<'a> Context<'a> {
    pub(super) fn new(weights: &'a Weights, config: &EngineConfig) -> Result<Self, LoadError> {
        let too_big = || LoadError::Context { slots: config.slots, context: config.context };
        let total = config.context.checked_mul(config.slots).and_then(NonZeroU32::new).ok_or_else(too_big)?;
        let threads = i32::try_from(config.threads).unwrap_or(1);
        let rows = MAX_ROWS as u32;
        let params = LlamaContextParams::default()
            .with_n_ctx(Some(total))
            .with_n_seq_max(config.slots)
            .with_kv_unified(false)
            .with_n_batch(rows)
            .with_n_ubatch(rows)
            .with_n_threads(threads)
            .with_n_threads_batch(threads)
            .with_type_k(KvCacheType::F16)
            .with_type_v(KvCacheType::F16)
            .with_flash_attention_policy(llama_cpp_sys_2::LLAMA_FLASH_ATTN_TYPE_DISABLED);
        let llama = weights.model.new_context(runtime::backend()?, params).map_err(|_| too_big())?;
        Ok(Self {
            llama,
            batch: LlamaBatch::new(MAX_ROWS, 1),
            takes_turns: config.takes_turns(),
            vocabulary: weights.vocabulary_size(),
        })
    }

    /// One forward pass over at most [`MAX_ROWS`] rows; logits are then found by row number.
    pub(super) fn pass(&mut self, rows: &[Row]) -> Result<(), SessionError> {
        self.batch.clear();
        for row in rows {
            let (position, slot) = (row.position as i32, row.slot as i32);
            self.batch.add(llama(row.token), position, &[slot], row.logits).map_err(failed)?;
        }
        let (llama, batch) = (&mut self.llama, &mut self.batch);
        let mut decode = || {
            let result = llama.decode(batch);
            llama.synchronize();
            result
        };
        if self.takes_turns { runtime::on_processor(decode) } else { decode() }.map_err(failed)
    }

    /// The logits of row `row` of the last pass, one a vocabulary entry.
    pub(super) fn logits(&self, row: usize) -> &[f32] {
        self.llama.get_logits_ith(row as i32)
    }

    /// Makes the cache of `to` that of `from`.
    pub(super) fn copy(&mut self, from: usize, to: usize) -> Result<(), SessionError> {
        self.llama.copy_kv_cache_seq(from as i32, to as i32, None, None).map_err(failed)
    }

    /// Forgets everything of `slot` from `position` on.
    pub(super) fn truncate(&mut self, slot: usize, position: usize) {
        // Fails only for models whose state cannot be cut (recurrent ones): those start over.
        let cut = self.llama.clear_kv_cache_seq(Some(slot as u32), Some(position as u32), None);
        if !matches!(cut, Ok(true)) {
            tracing::warn!(slot, position, "the cache could not be cut");
        }
    }
}

fn failed(error: impl ToString) -> SessionError {
    SessionError::Decode(error.to_string())
}
