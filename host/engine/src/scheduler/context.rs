//! A llama.cpp context with its batch.

use tightwad_core::TokenId;

use crate::config::EngineConfig;
use crate::error::{LoadError, SessionError};
use crate::llama::batch::Batch;
use crate::llama::context::ContextParams;
use crate::weights::Weights;
use crate::{llama, runtime};

/// The maximum number of rows of one forward pass.
pub(crate) const MAX_ROWS: usize = 512;

/// One row of a forward pass.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    pub slot: usize,
    pub position: usize,
    pub token: TokenId,
    pub logits: bool,
}

/// A llama.cpp context. On a CPU, passes of different models run one at a time.
pub(crate) struct BatchContext<'a> {
    llama: llama::context::LlamaContext<'a>,
    batch: Batch,
    shares_cpu: bool,
    pub(crate) vocabulary: u32,
}

impl<'a> BatchContext<'a> {
    pub(crate) fn new(weights: &'a Weights, config: &EngineConfig) -> Result<Self, LoadError> {
        let out_of_memory = || LoadError::OutOfMemory { slots: config.slots, context: config.context };
        let params = ContextParams {
            tokens: config
                .context
                .checked_mul(config.slots)
                .filter(|total| *total > 0)
                .ok_or_else(out_of_memory)?,
            sequences: config.slots,
            rows: MAX_ROWS as u32,
            threads: i32::try_from(config.threads).unwrap_or(1),
        };
        Ok(Self {
            llama: llama::context::LlamaContext::new(&weights.model, params).ok_or_else(out_of_memory)?,
            batch: Batch::default(),
            shares_cpu: config.shares_cpu(),
            vocabulary: weights.vocabulary_size(),
        })
    }

    /// Runs one forward pass over at most [`MAX_ROWS`] rows. [`Self::logits`] then takes the index of a row.
    pub(crate) fn forward(&mut self, rows: &[Row]) -> Result<(), SessionError> {
        self.batch.clear();
        for row in rows {
            self.batch.add(row.token, row.position, row.slot, row.logits);
        }
        let (llama, batch) = (&mut self.llama, &mut self.batch);
        let mut decode = || llama.decode(batch);
        let result = if self.shares_cpu { runtime::with_cpu_lock(decode) } else { decode() };
        result.map_err(|error| SessionError::Decode(error.to_string()))
    }

    /// The logits of row `row` of the last pass, one per vocabulary entry.
    pub(crate) fn logits(&self, row: usize) -> &[f32] {
        self.llama.logits(row)
    }

    /// Copies the cache of slot `from` to slot `to`.
    pub(crate) fn copy_cache(&mut self, from: usize, to: usize) {
        self.llama.copy_sequence(from, to);
    }

    /// Removes the tokens of `slot` from `position` on. Returns the number of remaining tokens. This number
    /// is `position`, or 0 if the model's state cannot be cut there (recurrent layers) and the slot was
    /// cleared.
    #[must_use]
    pub(crate) fn truncate(&mut self, slot: usize, position: usize) -> usize {
        if self.llama.truncate(slot, position) {
            return position;
        }
        self.clear(slot);
        0
    }

    /// Removes all tokens of `slot`.
    pub(crate) fn clear(&mut self, slot: usize) {
        if !self.llama.truncate(slot, 0) {
            tracing::error!(slot, "llama.cpp failed to clear a sequence");
        }
    }
}
