//! One sequence.
//!
//! Invariant: its slot's cache holds `tokens[..evaluated]`, and until it is finished at least the
//! last token is not evaluated, because its logits choose the next one.

use std::time::Instant;

use tightwad_core::{Sampling, TokenId, Verified};

use crate::constraint::Constraint;
use crate::error::SessionError;
use crate::open_session::OpenSession;
use crate::sampling::choice::{Context as Choosing, Picker};
use crate::sampling::history::History;
use crate::scheduler::absence::Absence;
use crate::scheduler::command::Work;
use crate::scheduler::context::{Context, Row};
use crate::scheduler::rows::{TAIL, chunk};

pub(crate) struct Sequence {
    pub slot: usize,
    /// Slots that hold the same as `slot`, for the branches of a tree while it is verified.
    pub branches: Vec<usize>,
    pub prompt: usize,
    pub tokens: Vec<TokenId>,
    pub evaluated: usize,
    pub sampling: Sampling,
    pub history: History,
    pub constraint: Option<Constraint>,
    pub max_tokens: u32,
    pub work: Option<Work>,
    pub finished: bool,
    /// What a verification committed before the tie that is being decided again.
    pub partial: Option<Verified>,
    pub absence: Absence,
    /// When it was asked for what it does, or had its last step of that.
    pub asked: Instant,
}

/// The token that a position gets.
pub(crate) struct Pick {
    pub token: TokenId,
    pub tie: bool,
}

impl Sequence {
    /// A sequence whose slot holds the first `evaluated` tokens; an error beside it where its
    /// constraint refuses what was generated elsewhere.
    pub(crate) fn new(open: OpenSession, slot: usize, evaluated: usize) -> (Self, Result<(), SessionError>) {
        let mut sequence = Self {
            slot,
            branches: Vec::new(),
            prompt: open.prompt.len(),
            history: History::of_prompt(&open.prompt),
            tokens: open.prompt,
            evaluated,
            sampling: open.sampling,
            constraint: open.constraint,
            max_tokens: open.max_tokens,
            work: None,
            finished: false,
            partial: None,
            absence: Absence::default(),
            asked: Instant::now(),
        };
        let resumed = open.output.iter().try_for_each(|token| sequence.push(*token));
        (sequence, resumed)
    }

    /// Tokens that are not in the cache.
    pub(crate) fn pending(&self) -> usize {
        self.tokens.len() - self.evaluated
    }

    /// Tokens that may still be generated.
    pub(crate) fn remaining(&self) -> usize {
        (self.max_tokens as usize).saturating_sub(self.tokens.len() - self.prompt)
    }

    /// Rows in `slot` of the first `count` pending tokens and of the `draft` after them; logits from
    /// the last pending token on.
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

    /// Chooses the token after all of `tokens` from `logits`; what the constraint allows at the
    /// end of the sequence is the end alone.
    pub(crate) fn pick(
        &mut self,
        logits: &[f32],
        picker: &mut Picker,
        tie_threshold: f32,
    ) -> Result<Pick, SessionError> {
        let mask = match &mut self.constraint {
            Some(constraint) => Some(constraint.mask().map_err(|error| SessionError::Constraint(error.0))?),
            None => None,
        };
        let allows = mask.as_ref().map(|mask| |token: TokenId| mask.is_allowed(token));
        let choosing = Choosing {
            sampling: &self.sampling,
            history: &self.history,
            allowed: allows.as_ref().map(|allows| allows as &dyn Fn(TokenId) -> bool),
            position: u32::try_from(self.tokens.len()).unwrap_or(u32::MAX),
            tie_threshold,
        };
        let choice = picker.pick(logits, &choosing);
        let choice = choice.ok_or_else(|| SessionError::Constraint("every token is forbidden".to_owned()))?;
        Ok(Pick { token: choice.token, tie: choice.tie })
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

    /// Appends `tokens` unverified, up to the first that its constraint or the end of its budget forbids, or
    /// that `ends` the turn, which is the model's own decision, or is no token of it. How many were appended.
    pub(crate) fn accept(
        &mut self,
        tokens: &[TokenId],
        ends: impl Fn(TokenId) -> bool,
    ) -> Result<usize, SessionError> {
        for (count, token) in tokens.iter().enumerate() {
            let allowed = match &mut self.constraint {
                Some(constraint) => constraint.mask().is_ok_and(|mask| mask.is_allowed(*token)),
                None => true,
            };
            if !allowed || ends(*token) || self.remaining() == 0 {
                return Ok(count);
            }
            self.push(*token)?;
        }
        Ok(tokens.len())
    }

    /// Cuts the output to `length` tokens, and the cache with it.
    pub(crate) fn truncate(&mut self, length: usize, context: &mut Context<'_>) {
        let removed = self.tokens.len() - length;
        for token in self.tokens.drain(length..) {
            self.history.pop(token);
        }
        if let Some(constraint) = &mut self.constraint
            && constraint.rollback(removed).is_err()
        {
            // Only drafters roll back: without the constraint they merely guess worse.
            self.constraint = None;
        }
        self.keep(length.saturating_sub(1), context);
    }

    /// Keeps at most `length` tokens in the cache. A state that cannot be cut is emptied: then all tokens are
    /// pending, and the next passes evaluate them again.
    pub(crate) fn keep(&mut self, length: usize, context: &mut Context<'_>) {
        if self.evaluated > length {
            self.evaluated = context.truncate(self.slot, length);
        }
    }

    /// After a piece of the prompt: answers the opening when all but the last token is evaluated.
    pub(crate) fn prefilled(&mut self) -> bool {
        if self.pending() > 1 {
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

    /// Ends the sequence's work with an error.
    pub(crate) fn fail(&mut self, error: &SessionError) {
        self.finished = true;
        self.partial = None;
        match self.work.take() {
            None => {}
            Some(Work::Prefill { reply, .. }) => drop(reply.send(Err(error.clone()))),
            Some(Work::Verify { reply, .. }) => drop(reply.send(Err(error.clone()))),
            Some(Work::Accept { reply, .. }) => drop(reply.send(Err(error.clone()))),
            Some(Work::Decode { steps, .. }) => drop(steps.send(Err(error.clone()))),
            Some(Work::Propose { reply, .. }) => drop(reply.send(Err(error.clone()))),
            Some(Work::Score { reply, .. }) => drop(reply.send(Err(error.clone()))),
        }
    }

    /// True when its next pass chooses a token: there is little left to evaluate before that. A position that is
    /// decided again has a pass of one row.
    pub(crate) fn is_next(&self) -> bool {
        let tail = if self.partial.is_some() { 1 } else { TAIL };
        !matches!(self.work, Some(Work::Prefill { .. }) | None) && self.pending() <= tail
    }

    /// The slots that take part in the next pass, each with what is evaluated there after the
    /// pending tokens.
    pub(crate) fn parts(&self) -> impl Iterator<Item = (usize, &[TokenId])> {
        let first = match &self.work {
            Some(Work::Verify { draft, .. }) => draft.first(),
            Some(Work::Score { text, scored, .. }) => chunk(text, scored.len()),
            _ => &[],
        };
        let others = match &self.work {
            Some(Work::Verify { draft, .. }) => draft.paths().get(1..).unwrap_or_default(),
            _ => &[],
        };
        let branches = self.branches.iter().copied().zip(others.iter().map(Vec::as_slice));
        std::iter::once((self.slot, first)).chain(branches)
    }
}
