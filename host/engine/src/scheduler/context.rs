//! A llama.cpp context and the one batch it is fed with.

use tightwad_core::TokenId;

use crate::config::EngineConfig;
use crate::error::{LoadError, SessionError};
use crate::llama::batch::Batch;
use crate::llama::context::ContextParams;
use crate::weights::Weights;
use crate::{llama, runtime};

/// Most rows of one forward pass.
pub(crate) const MAX_ROWS: usize = 512;

/// One row of a forward pass.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    pub slot: usize,
    pub position: usize,
    pub token: TokenId,
    pub logits: bool,
}

/// The context; on a processor, passes of different models take turns.
pub(crate) struct Context<'a> {
    llama: llama::context::Context<'a>,
    batch: Batch,
    takes_turns: bool,
    pub(crate) vocabulary: u32,
}

impl<'a> Context<'a> {
    pub(crate) fn new(weights: &'a Weights, config: &EngineConfig) -> Result<Self, LoadError> {
        let too_big = || LoadError::Context { slots: config.slots, context: config.context };
        let params = ContextParams {
            tokens: config
                .context
                .checked_mul(config.slots)
                .filter(|total| *total > 0)
                .ok_or_else(too_big)?,
            sequences: config.slots,
            rows: MAX_ROWS as u32,
            threads: i32::try_from(config.threads).unwrap_or(1),
        };
        Ok(Self {
            llama: llama::context::Context::new(&weights.model, params).ok_or_else(too_big)?,
            batch: Batch::default(),
            takes_turns: config.takes_turns(),
            vocabulary: weights.vocabulary_size(),
        })
    }

    /// One forward pass over at most [`MAX_ROWS`] rows; logits are then found by row number.
    pub(crate) fn pass(&mut self, rows: &[Row]) -> Result<(), SessionError> {
        self.batch.clear();
        for row in rows {
            self.batch.add(row.token, row.position, row.slot, row.logits);
        }
        let (llama, batch) = (&mut self.llama, &mut self.batch);
        let mut decode = || llama.decode(batch);
        let done = if self.takes_turns { runtime::on_processor(decode) } else { decode() };
        done.map_err(|error| SessionError::Decode(error.to_string()))
    }

    /// The logits of row `row` of the last pass, one a vocabulary entry.
    pub(crate) fn logits(&self, row: usize) -> &[f32] {
        self.llama.logits(row)
    }

    /// Makes the cache of `to` that of `from`.
    pub(crate) fn copy(&mut self, from: usize, to: usize) {
        self.llama.copy(from, to);
    }

    /// Forgets everything of `slot` from `position` on. Returns how many tokens are left: `position`, or 0 where
    /// the model's state cannot be cut there (recurrent layers) and the slot was emptied instead.
    #[must_use]
    pub(crate) fn truncate(&mut self, slot: usize, position: usize) -> usize {
        if self.llama.truncate(slot, position) {
            return position;
        }
        self.clear(slot);
        0
    }

    /// Forgets everything of `slot`.
    pub(crate) fn clear(&mut self, slot: usize) {
        if !self.llama.truncate(slot, 0) {
            tracing::error!(slot, "llama.cpp did not empty a sequence");
        }
    }
}
