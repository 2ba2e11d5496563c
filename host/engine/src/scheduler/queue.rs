//! All sequences of an engine: those that run and those that wait.
//!
//! Invariant: every running sequence holds one slot, and one more a branch while it verifies a
//! tree; `waiting` in the counters is the length of the queue plus the openings that are still on
//! their way here.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tightwad_core::TokenId;
use tokio::sync::oneshot;

use crate::config::EngineConfig;
use crate::error::SessionError;
use crate::open_session::OpenSession;
use crate::sampling::choice::Picker;
use crate::scheduler::batch_cost::BatchCost;
use crate::scheduler::command::{Command, Work};
use crate::scheduler::context::{Context, Row};
use crate::scheduler::plan::{Pace, Planned, Step};
use crate::scheduler::sequence::Sequence;
use crate::scheduler::slots::{Place, Slots};
use crate::scheduler::stats::Stats;
use crate::scheduler::verify_context::Judge;
use crate::scheduler::{plan, propose, score, verify};
use crate::weights::Weights;

#[cfg(test)]
mod tests;

struct Waiting {
    id: u64,
    open: Box<OpenSession>,
    reply: oneshot::Sender<Result<u32, SessionError>>,
}

pub(crate) struct Sequences {
    running: BTreeMap<u64, Sequence>,
    queue: VecDeque<Waiting>,
    slots: Slots,
    judge: Judge,
    tie_threshold: f32,
    context_size: usize,
    pace: Pace,
    rows: Vec<Row>,
}

impl Sequences {
    pub(crate) fn new(
        weights: Arc<Weights>,
        config: &EngineConfig,
        stats: Arc<Stats>,
        tie_threshold: f32,
    ) -> Self {
        Self {
            running: BTreeMap::new(),
            queue: VecDeque::new(),
            slots: Slots::new(config.slots, weights.has_recurrent_state()),
            judge: Judge {
                weights,
                picker: Picker::default(),
                tie_threshold: 0.0,
                took: Duration::ZERO,
                cost: Duration::ZERO,
                stats,
            },
            tie_threshold,
            context_size: config.context as usize,
            pace: Pace::default(),
            rows: Vec::new(),
        }
    }

    /// Takes one command.
    pub(crate) fn accept(&mut self, command: Command, context: &mut Context<'_>) {
        match command {
            Command::Open { id, open, reply } => self.queue.push_back(Waiting { id, open, reply }),
            Command::Close { id } => self.close(id, context),
            Command::Work { id, work, sent } => self.give(id, work, sent, context),
        }
    }

    /// Gives free slots to those that wait longest.
    pub(crate) fn admit(&mut self, context: &mut Context<'_>) {
        while let Some(next) = self.queue.front() {
            let known = [next.open.prompt.as_slice(), &next.open.output].concat();
            let Some(Place { slot, kept, copied }) = self.slots.take(&known) else { return };
            let Some(Waiting { id, open, reply }) = self.queue.pop_front() else { return };
            if let Some(copied) = copied {
                context.copy(copied, slot);
            }
            let kept = context.truncate(slot, kept);
            let stats = &self.judge.stats;
            stats.waiting.fetch_sub(1, Ordering::AcqRel);
            stats.active.fetch_add(1, Ordering::AcqRel);
            stats.reused.fetch_add(kept as u64, Ordering::Relaxed);
            let prefill = open.prefill;
            let (mut sequence, resumed) = Sequence::new(*open, slot, kept);
            let reused = u32::try_from(kept).unwrap_or(u32::MAX);
            if let Err(error) = resumed {
                sequence.finished = true;
                let _ = reply.send(Err(error));
            } else if prefill && sequence.pending() > 1 {
                sequence.work = Some(Work::Prefill { reused, reply });
            } else {
                let _ = reply.send(Ok(reused));
                sequence.absence.begins();
            }
            self.running.insert(id, sequence);
        }
    }

    /// True when a forward pass has something to do.
    pub(crate) fn has_work(&self) -> bool {
        self.running.values().any(|sequence| sequence.work.is_some())
    }

    /// Until when those that were answered last can be expected to be back, if any can within `most`.
    pub(crate) fn expected(&self, most: Duration) -> Option<Instant> {
        self.running.values().filter_map(|sequence| sequence.absence.ends(most)).max()
    }

    /// One forward pass over what is ready; false when nothing is.
    pub(crate) fn tick(&mut self, context: &mut Context<'_>) -> bool {
        let mut rows = std::mem::take(&mut self.rows);
        rows.clear();
        let planned = plan::plan(&self.running, &mut self.pace, &mut rows);
        if let Err(error) = self.pass(&planned, &rows, context) {
            self.pass_one_by_one(planned, &error, context);
        }
        let any = !rows.is_empty();
        self.rows = rows;
        any
    }

    /// One forward pass over `rows`, and what follows from it for each of `planned`. An error where the pass
    /// failed as a whole.
    fn pass(
        &mut self,
        planned: &[Planned],
        rows: &[Row],
        context: &mut Context<'_>,
    ) -> Result<(), SessionError> {
        if rows.is_empty() {
            return Ok(());
        }
        let start = Instant::now();
        let passed = context.pass(rows);
        let took = start.elapsed();
        self.pace.observe(rows.len(), took);
        let stats = &self.judge.stats;
        stats.ticks.fetch_add(1, Ordering::Relaxed);
        stats.rows.fetch_add(rows.len() as u64, Ordering::Relaxed);
        self.judge.tie_threshold = if rows.len() > 1 { self.tie_threshold } else { 0.0 };
        let sequences = planned.iter().filter(|one| matches!(one.step, Step::Token { .. })).count();
        let pass = BatchCost::new(took, rows.len(), sequences, stats);
        passed?;
        for one in planned {
            if let Err(error) = self.advance(one, &pass, context)
                && let Some(sequence) = self.running.get_mut(&one.id)
            {
                sequence.fail(&error);
            }
            self.release(one.id, context);
        }
        Ok(())
    }

    /// After a pass that failed with `error`: each sequence in it has a pass of its own, so that only the one at
    /// fault fails.
    fn pass_one_by_one(&mut self, planned: Vec<Planned>, error: &SessionError, context: &mut Context<'_>) {
        let alone = planned.len() == 1;
        for one in planned {
            // The pass may have evaluated a part of the rows.
            self.release(one.id, context);
            let Some(sequence) = self.running.get_mut(&one.id) else { continue };
            if let Some(Work::Verify { draft, .. }) = &mut sequence.work {
                draft.keep_paths(1);
            }
            sequence.evaluated = context.truncate(sequence.slot, sequence.evaluated);
            let mut rows = Vec::new();
            let again = plan::plan_one(one.id, sequence, &mut rows);
            let failed = if alone { Err(error.clone()) } else { self.pass(&[again], &rows, context) };
            if let (Err(error), Some(sequence)) = (failed, self.running.get_mut(&one.id)) {
                tracing::warn!(%error, "a sequence failed");
                sequence.fail(&error);
                // Nothing is known about its cache.
                context.clear(sequence.slot);
                sequence.evaluated = 0;
            }
        }
    }

    fn advance(
        &mut self,
        planned: &Planned,
        pass: &BatchCost,
        context: &mut Context<'_>,
    ) -> Result<(), SessionError> {
        let Some(sequence) = self.running.get_mut(&planned.id) else { return Ok(()) };
        let answered = match planned.step {
            Step::Prefill { rows } => {
                sequence.evaluated += rows;
                sequence.prefilled()
            }
            Step::Token { row, rows } => {
                let now = Instant::now();
                self.judge.took = now.saturating_duration_since(sequence.asked);
                self.judge.cost = pass.attribute(rows, self.judge.took);
                sequence.asked = now;
                match sequence.work.take() {
                    Some(work @ Work::Propose { .. }) => {
                        propose::advance(sequence, work, row, context, &mut self.judge)?
                    }
                    Some(work @ Work::Score { .. }) => score::advance(sequence, work, row, context),
                    Some(work) => verify::advance(sequence, work, row, context, &mut self.judge)?,
                    None => false,
                }
            }
        };
        if answered {
            sequence.absence.begins();
        }
        Ok(())
    }

    fn give(&mut self, id: u64, work: Work, sent: Instant, context: &mut Context<'_>) {
        // A session that is gone hears of it through its dropped channel.
        let Some(sequence) = self.running.get_mut(&id) else { return };
        let ended = sequence.finished;
        sequence.absence.over(sent);
        sequence.asked = sent;
        sequence.work = Some(work);
        let known = |tokens: &[TokenId]| tokens.iter().find(|token| **token >= context.vocabulary).copied();
        let unknown = match &sequence.work {
            Some(
                Work::Propose { output: tokens, .. }
                | Work::Score { text: tokens, .. }
                | Work::Accept { tokens, .. },
            ) => known(tokens),
            _ => None,
        };
        match &sequence.work {
            _ if ended => sequence.fail(&SessionError::Finished),
            _ if unknown.is_some() => {
                sequence.fail(&SessionError::UnknownToken(unknown.unwrap_or_default()));
                // It may be asked again.
                sequence.finished = false;
            }
            Some(Work::Propose { .. }) => propose::begin(sequence, self.context_size, context),
            Some(Work::Score { .. }) => score::begin(sequence, self.context_size),
            Some(Work::Accept { .. }) => accept(sequence, &self.judge.weights),
            _ => verify::begin(sequence, self.context_size, &mut self.slots, context),
        }
    }

    /// Gives the slots of a tree's branches back, empty.
    fn release(&mut self, id: u64, context: &mut Context<'_>) {
        let Some(sequence) = self.running.get_mut(&id) else { return };
        for branch in sequence.branches.drain(..) {
            context.clear(branch);
            self.slots.free(branch, Vec::new());
        }
    }

    fn close(&mut self, id: u64, context: &mut Context<'_>) {
        self.release(id, context);
        let stats = &self.judge.stats;
        if let Some(mut sequence) = self.running.remove(&id) {
            sequence.tokens.truncate(sequence.evaluated);
            self.slots.free(sequence.slot, sequence.tokens);
            stats.active.fetch_sub(1, Ordering::AcqRel);
        } else if let Some(index) = self.queue.iter().position(|waiting| waiting.id == id) {
            self.queue.remove(index);
            stats.waiting.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

/// Accepts at once: nothing is computed before the next pass.
fn accept(sequence: &mut Sequence, weights: &Weights) {
    match sequence.work.take() {
        Some(Work::Accept { tokens, reply }) => {
            // Whoever asked may be gone.
            let ends = |token| weights.ends(token) || token >= weights.vocabulary_size();
            let _ = reply.send(sequence.accept(&tokens, ends));
        }
        other => sequence.work = other,
    }
}
