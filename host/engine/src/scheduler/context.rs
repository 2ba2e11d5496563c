//! A llama.cpp context with its batch.

use crate::config::EngineConfig;
use crate::error::{LoadError, SessionError};
use crate::llama::batch::Batch;
use crate::llama::context::ContextParams;
use crate::llama::heads::HeadContext;
use crate::scheduler::checkpoints::Purpose;
use crate::scheduler::heads::Heads;
use crate::scheduler::recurrent::RecurrentStates;
use crate::scheduler::rows::{MAX_ROWS, Row};
use crate::sizing::RollbackMemory;
use crate::weights::Weights;
use crate::{llama, runtime};

/// A llama.cpp context. On a CPU, passes of different models run one at a time.
pub(crate) struct BatchContext<'a> {
    llama: llama::context::LlamaContext<'a>,
    batch: Batch,
    shares_cpu: bool,
    pub(crate) vocabulary: u32,
    /// The states of recurrent layers; `None` if the model has none, so that its cache can be cut at any token.
    recurrent: Option<RecurrentStates>,
    /// The draft heads of the model, once a drafter uses them.
    heads: Option<Heads<'a>>,
    weights: &'a Weights,
    params: ContextParams,
}

impl<'a> BatchContext<'a> {
    pub(crate) fn new(
        weights: &'a Weights,
        config: &EngineConfig,
        rollback: RollbackMemory,
    ) -> Result<Self, LoadError> {
        let out_of_memory = || LoadError::OutOfMemory { slots: config.slots, context: config.context };
        let params = ContextParams {
            tokens: config
                .context
                .checked_mul(config.slots)
                .filter(|total| *total > 0)
                .ok_or_else(out_of_memory)?,
            sequences: config.slots,
            rows: MAX_ROWS as u32,
            snapshots: rollback.snapshots,
            heads: false,
            threads: i32::try_from(config.threads).unwrap_or(1),
        };
        let llama = llama::context::LlamaContext::new(&weights.model, params).ok_or_else(out_of_memory)?;
        let recurrent = weights.has_recurrent_state().then(|| {
            RecurrentStates::new(config.slots as usize, llama.snapshots(), rollback.checkpoint_bytes)
        });
        Ok(Self {
            llama,
            recurrent,
            heads: None,
            weights,
            params,
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
        if let Some(recurrent) = &mut self.recurrent {
            recurrent.record_pass(rows, result.is_ok());
        }
        if let Some(heads) = self.heads.as_mut().filter(|_| result.is_ok()) {
            heads.record_pass(rows, |row| self.llama.hidden_state(row));
        }
        result.map_err(|error| SessionError::Decode(error.to_string()))
    }

    /// The logits of row `row` of the last pass, one per vocabulary entry.
    pub(crate) fn logits(&self, row: usize) -> &[f32] {
        self.llama.logits(row)
    }

    /// True if the model has recurrent layers.
    pub(crate) fn is_recurrent(&self) -> bool {
        self.recurrent.is_some()
    }

    /// Copies the cache of slot `from` to slot `to`.
    pub(crate) fn copy_cache(&mut self, from: usize, to: usize) {
        match &mut self.recurrent {
            Some(recurrent) => recurrent.copy(&mut self.llama, from, to),
            None => self.llama.copy_sequence(from, to),
        }
        if let Some(heads) = &mut self.heads {
            heads.copy(from, to);
        }
    }

    /// The number of tokens that a prompt with `common` first tokens of `slot` need not evaluate again.
    pub(crate) fn reusable(&self, slot: usize, common: usize) -> usize {
        self.recurrent.as_ref().map_or(common, |recurrent| recurrent.reusable(slot, common))
    }

    /// Removes the tokens of `slot` from `position` on. Returns the number of remaining tokens. A recurrent state may
    /// have to return to an earlier position than `position`.
    #[must_use]
    pub(crate) fn truncate(&mut self, slot: usize, position: usize) -> usize {
        let remaining = match &mut self.recurrent {
            Some(recurrent) => recurrent.truncate(&mut self.llama, slot, position),
            None => self.llama.truncate(slot, position).then_some(position),
        };
        let Some(remaining) = remaining else {
            self.clear(slot);
            return 0;
        };
        if let Some(heads) = &mut self.heads {
            heads.truncate(slot, remaining);
        }
        remaining
    }

    /// Removes all tokens of `slot`.
    pub(crate) fn clear(&mut self, slot: usize) {
        if !self.llama.truncate(slot, 0) {
            tracing::error!(slot, "llama.cpp failed to clear a sequence");
        }
        if let Some(recurrent) = &mut self.recurrent {
            recurrent.clear(slot);
        }
        if let Some(heads) = &mut self.heads {
            heads.truncate(slot, 0);
        }
    }

    /// Makes the draft heads follow all passes from now on. Does nothing for a model without heads.
    pub(crate) fn enable_heads(&mut self) {
        if self.heads.is_some() || self.weights.head_count() == 0 {
            return;
        }
        let Some(context) = HeadContext::new(&self.weights.model, self.params, self.shares_cpu) else {
            tracing::warn!("there is not enough memory for the model's draft heads; they do not draft");
            return;
        };
        self.llama.keep_hidden_states(false);
        self.heads = Some(Heads::new(context, self.params.sequences as usize, self.llama.hidden_size()));
    }

    /// The draft heads; `None` if the model has none, or before [`Self::enable_heads`].
    pub(crate) fn heads(&mut self) -> Option<&mut Heads<'a>> {
        self.heads.as_mut()
    }

    /// Prepares `slot` for the rejection of up to `draft` tokens of the next pass. `exactly`: the pass may have to be
    /// repeated from its first row.
    pub(crate) fn prepare_rejection(&mut self, slot: usize, draft: usize, exactly: bool) {
        if let Some(recurrent) = &mut self.recurrent {
            recurrent.prepare_rejection(&mut self.llama, slot, draft, exactly);
        }
    }

    /// Marks the state of `slot` as a place to which the next proposal returns.
    pub(crate) fn save_for_round(&mut self, slot: usize) {
        if let Some(recurrent) = &mut self.recurrent {
            recurrent.save(&mut self.llama, slot, Purpose::Round);
        }
    }

    /// Marks the state of `slot` as a place where later requests may begin, if the last one is long ago.
    pub(crate) fn save_at_interval(&mut self, slot: usize) {
        if let Some(recurrent) = &mut self.recurrent {
            recurrent.save_at_interval(&mut self.llama, slot);
        }
    }

    /// Marks the state of `slot` as a place where later requests may begin.
    pub(crate) fn save(&mut self, slot: usize) {
        if let Some(recurrent) = &mut self.recurrent {
            recurrent.save(&mut self.llama, slot, Purpose::Conversation);
        }
    }
}
