//! One sequence.
//!
//! Invariants: the cache of the sequence's slot holds `tokens[..evaluated]`. While the sequence has work, at least its
//! last token is pending: the logits of this token choose the next one. The session knows exactly
//! `tokens[..committed]`; after a panic the sequence continues from there.

use std::sync::Arc;
use std::time::Instant;

use tightwad_core::{Sampling, StepResult, TokenId};

use crate::constraint::Constraint;
use crate::error::SessionError;
use crate::sampling::history::History;
use crate::sampling::sampler::{SampleContext, SampledToken, Sampler};
use crate::scheduler::command::Work;
use crate::scheduler::context::BatchContext;
use crate::scheduler::recurrent::{CHECKPOINT_INTERVAL, MIN_SAVED_TOKENS};
use crate::scheduler::rows::{MAX_PENDING_ROWS, Row, score_chunk};
use crate::scheduler::think_time::ThinkTime;
use crate::session_params::SessionParams;

/// The number of last tokens of a prompt that a chat template may write differently in the next turn: the beginning of
/// the answer, such as an empty block of thoughts.
const TAIL_TOKENS: usize = 16;

pub(crate) struct Sequence {
    pub slot: usize,
    /// Slots with copies of the cache, for the branches of a tree during its verification.
    pub branches: Vec<usize>,
    pub prompt_length: usize,
    pub tokens: Vec<TokenId>,
    pub evaluated: usize,
    /// Tokens that the session knows: the prompt and the output of all replies.
    committed: usize,
    pub sampling: Sampling,
    pub history: History,
    pub constraint: Option<Constraint>,
    /// The constraint before the first token of the output.
    initial_constraint: Option<Arc<Constraint>>,
    /// True if the opening waits for the evaluation of the prompt.
    prefill: bool,
    /// True until `start` has succeeded: `history` and `constraint` do not match `tokens`.
    pub is_stale: bool,
    /// Panics while this sequence was worked on, since its last reply.
    pub panics: u32,
    pub max_tokens: u32,
    pub work: Option<Work>,
    pub finished: bool,
    /// The result of a verification up to a tie, while a one-token pass decides the tie.
    pub partial: Option<StepResult>,
    pub think_time: ThinkTime,
    /// True if the model has recurrent layers.
    pub is_recurrent: bool,
    /// The time of the last step of the current work; before the first step, the time of its arrival.
    pub last_step_at: Instant,
}

impl Sequence {
    /// A sequence whose slot holds the first `evaluated` tokens. [`Self::start`] must follow.
    pub(crate) fn new(params: SessionParams, slot: usize, evaluated: usize) -> Self {
        let prompt_length = params.prompt.len();
        let tokens = [params.prompt, params.output].concat();
        Self {
            slot,
            branches: Vec::new(),
            prompt_length,
            history: History::default(),
            committed: tokens.len(),
            tokens,
            evaluated,
            sampling: params.sampling,
            constraint: None,
            initial_constraint: params.constraint,
            prefill: params.prefill,
            is_stale: true,
            panics: 0,
            max_tokens: params.max_tokens,
            work: None,
            finished: false,
            partial: None,
            think_time: ThinkTime::default(),
            is_recurrent: false,
            last_step_at: Instant::now(),
        }
    }

    /// Brings history and constraint to the committed tokens. Returns an error if the constraint forbids them.
    pub(crate) fn start(&mut self) -> Result<(), SessionError> {
        let (prompt, output) = self.tokens.split_at(self.prompt_length);
        self.history = History::of_prompt(prompt);
        output.iter().for_each(|token| self.history.push(*token));
        let mut constraint = self.initial_constraint.as_deref().cloned();
        if let Some(constraint) = &mut constraint {
            let pushed = output.iter().try_for_each(|token| constraint.push(*token));
            pushed.map_err(|error| SessionError::Constraint(error.0))?;
        }
        self.constraint = constraint;
        self.is_stale = false;
        Ok(())
    }

    /// Returns to the committed tokens, with the empty cache of `slot`. [`Self::start`] must follow.
    pub(crate) fn restart(&mut self, slot: usize) {
        self.tokens.truncate(self.committed);
        (self.slot, self.evaluated, self.is_stale) = (slot, 0, true);
        self.branches.clear();
        self.partial = None;
        // The pause is not a cost of the work.
        self.last_step_at = Instant::now();
        if let Some(work) = &mut self.work {
            work.restart();
        }
    }

    /// The session learns all tokens.
    pub(crate) fn mark_committed(&mut self) {
        self.committed = self.tokens.len();
        self.panics = 0;
    }

    /// True if the opening must wait until the prompt is evaluated.
    pub(crate) fn needs_prefill(&self) -> bool {
        self.prefill && self.pending_tokens() > 1
    }

    /// The number of tokens that are not in the cache.
    pub(crate) fn pending_tokens(&self) -> usize {
        self.tokens.len() - self.evaluated
    }

    /// The number of tokens that may still be generated.
    pub(crate) fn remaining_tokens(&self) -> usize {
        (self.max_tokens as usize).saturating_sub(self.tokens.len() - self.prompt_length)
    }

    /// The rows in `slot` of the first `count` pending tokens and of `draft` after them. Rows from the last
    /// pending token on have logits.
    pub(crate) fn rows<'a>(
        &'a self,
        slot: usize,
        count: usize,
        draft: &'a [TokenId],
    ) -> impl Iterator<Item = Row> + 'a {
        let last = self.tokens.len() - 1;
        let pending = self.tokens[self.evaluated..self.evaluated + count].iter();
        pending.chain(draft).enumerate().map(move |(offset, token)| {
            let position = self.evaluated + offset;
            Row { slot, position, token: *token, logits: position >= last }
        })
    }

    /// Samples the token after all of `tokens` from `logits`. At the end of the output, the constraint allows
    /// only the end-of-sequence token.
    pub(crate) fn sample(
        &mut self,
        logits: &[f32],
        sampler: &mut Sampler,
        tie_threshold: f32,
    ) -> Result<SampledToken, SessionError> {
        let mask = match &mut self.constraint {
            Some(constraint) => Some(constraint.mask().map_err(|error| SessionError::Constraint(error.0))?),
            None => None,
        };
        let allows = mask.as_ref().map(|mask| |token: TokenId| mask.is_allowed(token));
        let sample_context = SampleContext {
            sampling: &self.sampling,
            history: &self.history,
            allowed: allows.as_ref().map(|allows| allows as &dyn Fn(TokenId) -> bool),
            position: u32::try_from(self.tokens.len()).unwrap_or(u32::MAX),
            tie_threshold,
        };
        let sampled = sampler.sample(logits, &sample_context);
        sampled.ok_or_else(|| self.no_token_error())
    }

    /// The error if no token can follow.
    fn no_token_error(&self) -> SessionError {
        if !self.sampling.logit_bias.is_empty() {
            SessionError::AllForbidden
        } else if self.constraint.is_some() {
            SessionError::Constraint("it forbids every token".to_owned())
        } else {
            SessionError::Decode("the model gave no token a probability".to_owned())
        }
    }

    /// Appends `token` to the output.
    pub(crate) fn push(&mut self, token: TokenId) -> Result<(), SessionError> {
        self.tokens.push(token);
        self.history.push(token);
        match &mut self.constraint {
            Some(constraint) => constraint.push(token).map_err(|error| SessionError::Constraint(error.0)),
            None => Ok(()),
        }
    }

    /// Appends `tokens` without verification. Stops at a token that the constraint or the token limit
    /// forbids, or for which `must_stop` is true. Returns the number of appended tokens.
    pub(crate) fn accept(
        &mut self,
        tokens: &[TokenId],
        must_stop: impl Fn(TokenId) -> bool,
    ) -> Result<usize, SessionError> {
        for (count, token) in tokens.iter().enumerate() {
            let allowed = match &mut self.constraint {
                Some(constraint) => constraint.mask().is_ok_and(|mask| mask.is_allowed(*token)),
                None => true,
            };
            if !allowed || must_stop(*token) || self.remaining_tokens() == 0 {
                return Ok(count);
            }
            self.push(*token)?;
        }
        Ok(tokens.len())
    }

    /// Cuts the tokens to `length`, and the cache with them.
    pub(crate) fn truncate(&mut self, length: usize, context: &mut BatchContext<'_>) {
        let removed = self.take_tokens_after(length).len();
        if let Some(constraint) = &mut self.constraint
            && constraint.rollback(removed).is_err()
        {
            // Only drafters roll back. Without the constraint, their drafts are merely worse.
            self.constraint = None;
        }
        self.truncate_cache(length, context);
    }

    /// Takes the tokens after the first `length` ones, without their cache and their part of the constraint.
    pub(crate) fn take_tokens_after(&mut self, length: usize) -> Vec<TokenId> {
        let taken: Vec<TokenId> = self.tokens.drain(length..).collect();
        taken.iter().for_each(|token| self.history.pop(*token));
        taken
    }

    /// Makes the last token pending, for work that needs its logits again.
    pub(crate) fn make_last_token_pending(&mut self, context: &mut BatchContext<'_>) {
        self.truncate_cache(self.tokens.len().saturating_sub(1), context);
    }

    /// Keeps at most `length` tokens in the cache. A recurrent state may have to return to an earlier token. The tokens
    /// after it become pending, and the next passes evaluate them again.
    pub(crate) fn truncate_cache(&mut self, length: usize, context: &mut BatchContext<'_>) {
        if self.evaluated > length {
            self.evaluated = context.truncate(self.slot, length);
        }
    }

    /// The number of rows of the next part of the prompt, at most `max_rows`. A part of a model with recurrent layers ends
    /// where a later request may begin: at each interval, and before the last tokens of the prompt, which the next turn of
    /// a conversation often changes.
    pub(crate) fn prefill_rows(&self, max_rows: usize) -> usize {
        let end = self.tokens.len() - 1;
        if !self.is_recurrent {
            return (end - self.evaluated).min(max_rows);
        }
        let before_tail = end.saturating_sub(TAIL_TOKENS);
        let is_before_tail = self.evaluated < before_tail && before_tail >= MIN_SAVED_TOKENS;
        let next_interval = (self.evaluated / CHECKPOINT_INTERVAL + 1) * CHECKPOINT_INTERVAL;
        let stop = if is_before_tail { before_tail } else { end };
        (stop.min(next_interval) - self.evaluated).min(max_rows)
    }

    /// Saves the recurrent state after a part of the prompt, where a later request may begin.
    pub(crate) fn save_state(&self, context: &mut BatchContext<'_>) {
        let remaining = self.pending_tokens() - 1;
        if remaining == 0 || remaining == TAIL_TOKENS {
            context.save(self.slot);
        } else {
            context.save_at_interval(self.slot);
        }
    }

    /// Ends a prefill chunk. If only the last token is pending, replies to the opening and returns true.
    pub(crate) fn finish_prefill(&mut self) -> bool {
        if self.pending_tokens() > 1 {
            return false;
        }
        match self.work.take() {
            Some(Work::Prefill { reused, reply }) => reply.send(Ok(reused)).is_ok(),
            other => {
                self.work = other;
                false
            }
        }
    }

    /// Fails the current work with `error` and finishes the sequence.
    pub(crate) fn fail(&mut self, error: &SessionError) {
        self.finished = true;
        self.partial = None;
        if let Some(work) = self.work.take() {
            work.fail(error);
        }
    }

    /// True if the next pass must have one row, which decides a tie.
    pub(crate) fn is_tied(&self) -> bool {
        self.partial.is_some() && self.pending_tokens() == 1
    }

    /// True if the next pass can choose a token, because few tokens are pending before it. A tied position
    /// needs a pass of one row.
    pub(crate) fn wants_token(&self) -> bool {
        let max_pending = if self.partial.is_some() { 1 } else { MAX_PENDING_ROWS };
        !matches!(self.work, Some(Work::Prefill { .. }) | None) && self.pending_tokens() <= max_pending
    }

    /// The slots of the next pass, each with the tokens to evaluate after the pending ones.
    pub(crate) fn slot_drafts(&self) -> impl Iterator<Item = (usize, &[TokenId])> {
        let first_path = match &self.work {
            Some(Work::Verify { draft, .. }) => draft.first_path(),
            Some(Work::Score { text, scored, .. }) => score_chunk(text, scored.len()),
            _ => &[],
        };
        let other_paths = match &self.work {
            Some(Work::Verify { draft, .. }) => draft.paths().get(1..).unwrap_or_default(),
            _ => &[],
        };
        let branches = self.branches.iter().copied().zip(other_paths.iter().map(Vec::as_slice));
        std::iter::once((self.slot, first_path)).chain(branches)
    }
}
