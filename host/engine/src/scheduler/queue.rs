//! The sequences of an engine: the running ones, and the queued requests.
//!
//! Invariant: each running sequence holds one slot, and one more per branch while it verifies a tree. The
//! counter `queued_requests` is the length of the queue plus the number of `Open` commands in the channel.
//!
//! Each step that may panic first names its sequences in `suspects`, and keeps the work of one sequence in
//! `in_progress`. So [`Sequences::recover`] loses no work.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::config::EngineConfig;
use crate::error::SessionError;
use crate::sampling::sampler::Sampler;
use crate::scheduler::batch_cost::BatchCost;
use crate::scheduler::begin::BeginContext;
use crate::scheduler::command::{Command, Work};
use crate::scheduler::context::BatchContext;
use crate::scheduler::plan::{PlannedStep, Step, TokenBudget};
use crate::scheduler::rows::Row;
use crate::scheduler::sequence::Sequence;
use crate::scheduler::slots::{SlotLease, Slots};
use crate::scheduler::stats::Stats;
use crate::scheduler::verify_context::VerifyContext;
use crate::scheduler::{begin, plan, propose, score, verify};
use crate::session_params::SessionParams;
use crate::weights::Weights;

mod failures;
mod heads;

#[cfg(test)]
mod tests;

struct QueuedRequest {
    id: u64,
    params: Box<SessionParams>,
    reply: oneshot::Sender<Result<u32, SessionError>>,
}

pub(crate) struct Sequences {
    running: BTreeMap<u64, Sequence>,
    queue: VecDeque<QueuedRequest>,
    slots: Slots,
    verify_context: VerifyContext,
    tie_threshold: f32,
    context_size: usize,
    token_budget: TokenBudget,
    rows: Vec<Row>,
    /// The sequences that the current step works on.
    suspects: Vec<u64>,
    /// The work of the only suspect, while a function may reply to it.
    in_progress: Option<Work>,
    /// True if the next pass is for a sequence that took part in a panic.
    isolate_next: bool,
    /// True once a drafter uses the model's draft heads.
    uses_heads: bool,
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
            slots: Slots::new(config.slots),
            verify_context: VerifyContext {
                weights,
                sampler: Sampler::default(),
                tie_threshold: 0.0,
                elapsed: Duration::ZERO,
                cost: Duration::ZERO,
                stats,
            },
            tie_threshold,
            context_size: config.context as usize,
            token_budget: TokenBudget::default(),
            rows: Vec::new(),
            suspects: Vec::new(),
            in_progress: None,
            isolate_next: false,
            uses_heads: false,
        }
    }

    /// Handles one command.
    pub(crate) fn handle_command(&mut self, command: Command, context: &mut BatchContext<'_>) {
        match command {
            Command::Open { id, params, reply } => self.queue.push_back(QueuedRequest { id, params, reply }),
            Command::Close { id } => self.close(id, context),
            Command::Work { id, work, sent_at } => self.submit(id, work, sent_at, context),
            Command::EnableHeads => self.enable_heads(context),
            Command::ProposeWithHeads(request) => self.propose_with_heads(request, context),
        }
    }

    /// Gives free slots to the requests that wait longest.
    pub(crate) fn admit(&mut self, context: &mut BatchContext<'_>) {
        while let Some(next) = self.queue.front() {
            let tokens = [next.params.prompt.as_slice(), &next.params.output].concat();
            let lease = self.slots.lease(&tokens, |slot, common| context.reusable(slot, common));
            let Some(SlotLease { slot, reused_tokens, copy_from }) = lease else { return };
            let Some(QueuedRequest { id, params, reply }) = self.queue.pop_front() else { return };
            self.verify_context.stats.queued_requests.fetch_sub(1, Ordering::AcqRel);
            if let Some(source) = copy_from {
                context.copy_cache(source, slot);
            }
            let reused = context.truncate(slot, reused_tokens);
            let stats = &self.verify_context.stats;
            stats.active_sequences.fetch_add(1, Ordering::AcqRel);
            stats.reused_tokens.fetch_add(reused as u64, Ordering::Relaxed);
            let mut sequence = Sequence::new(*params, slot, reused);
            sequence.is_recurrent = context.is_recurrent();
            let reused = u32::try_from(reused).unwrap_or(u32::MAX);
            sequence.work = Some(Work::Prefill { reused, reply });
            self.running.insert(id, sequence);
            self.start(id, context);
        }
    }

    /// Starts the sequences that [`Self::recover`] has prepared.
    pub(crate) fn start_recovered(&mut self, context: &mut BatchContext<'_>) {
        if self.uses_heads {
            context.enable_heads();
        }
        let recovered = self.running.iter().filter(|(_, sequence)| sequence.is_stale && !sequence.finished);
        let ids: Vec<u64> = recovered.map(|(id, _)| *id).collect();
        ids.into_iter().for_each(|id| self.start(id, context));
    }

    fn start(&mut self, id: u64, context: &mut BatchContext<'_>) {
        self.suspect(id);
        let Some(sequence) = self.running.get_mut(&id) else { return };
        match sequence.start() {
            Ok(()) => self.begin(id, context),
            Err(error) => sequence.fail(&error),
        }
        self.suspects.clear();
    }

    fn suspect(&mut self, id: u64) {
        self.suspects.clear();
        self.suspects.push(id);
    }

    /// True if a sequence has work.
    pub(crate) fn has_work(&self) -> bool {
        self.running.values().any(|sequence| sequence.work.is_some())
    }

    /// The end of the batching window: the latest time at which a session is expected back. `None` if none is
    /// expected within `window`.
    pub(crate) fn batching_deadline(&self, window: Duration) -> Option<Instant> {
        self.running.values().filter_map(|sequence| sequence.think_time.deadline(window)).max()
    }

    /// Runs one forward pass over the ready work. Returns false if there is none.
    pub(crate) fn run_pass(&mut self, context: &mut BatchContext<'_>) -> bool {
        let mut rows = std::mem::take(&mut self.rows);
        rows.clear();
        let planned = self.plan(&mut rows);
        if let Err(error) = self.forward(&planned, &rows, context) {
            self.retry_one_by_one(planned, &error, context);
        }
        self.suspects.clear();
        let has_rows = !rows.is_empty();
        self.rows = rows;
        has_rows
    }

    /// Plans the next pass. Passes of a sequence that took part in a panic alternate with passes of the others.
    fn plan(&mut self, rows: &mut Vec<Row>) -> Vec<PlannedStep> {
        let ready = || self.running.iter().filter(|(_, sequence)| sequence.work.is_some());
        let isolated = ready().find(|(_, sequence)| sequence.panics > 0 && !sequence.is_tied());
        let others = || ready().any(|(_, sequence)| sequence.panics == 0);
        match isolated {
            Some((id, sequence)) if self.isolate_next || !others() => {
                self.isolate_next = false;
                vec![plan::plan_alone(*id, sequence, rows)]
            }
            _ => {
                self.isolate_next = true;
                plan::plan(&self.running, &mut self.token_budget, rows)
            }
        }
    }

    /// Runs one forward pass over `rows`, then advances each sequence of `planned`. Returns an error if the
    /// whole pass failed.
    fn forward(
        &mut self,
        planned: &[PlannedStep],
        rows: &[Row],
        context: &mut BatchContext<'_>,
    ) -> Result<(), SessionError> {
        if rows.is_empty() {
            return Ok(());
        }
        self.suspects.clear();
        self.suspects.extend(planned.iter().map(|step| step.id));
        let may_tie = rows.len() > 1 && self.tie_threshold > 0.0;
        let sequences = planned.iter().filter_map(|step| self.running.get(&step.id));
        sequences.for_each(|sequence| verify::prepare_rejection(sequence, may_tie, context));
        let start = Instant::now();
        let result = context.forward(rows);
        let elapsed = start.elapsed();
        self.token_budget.record_pass(rows.len(), elapsed);
        let stats = &self.verify_context.stats;
        stats.forward_passes.fetch_add(1, Ordering::Relaxed);
        stats.rows.fetch_add(rows.len() as u64, Ordering::Relaxed);
        self.verify_context.tie_threshold = if rows.len() > 1 { self.tie_threshold } else { 0.0 };
        let sequences = planned.iter().filter(|step| matches!(step.step, Step::Token { .. })).count();
        let batch_cost = BatchCost::new(elapsed, rows.len(), sequences, stats);
        result?;
        for step in planned {
            self.suspect(step.id);
            if let Err(error) = self.advance(step, &batch_cost, context)
                && let Some(sequence) = self.running.get_mut(&step.id)
            {
                sequence.fail(&error);
            }
            self.release_branches(step.id, context);
        }
        Ok(())
    }

    /// Gives each sequence of a failed pass a pass of its own, so that only the faulty sequence fails.
    fn retry_one_by_one(
        &mut self,
        planned: Vec<PlannedStep>,
        error: &SessionError,
        context: &mut BatchContext<'_>,
    ) {
        let alone = planned.len() == 1;
        for step in planned {
            // The failed pass may have evaluated some of the rows.
            self.release_branches(step.id, context);
            let Some(sequence) = self.running.get_mut(&step.id) else { continue };
            if let Some(Work::Verify { draft, .. }) = &mut sequence.work {
                draft.limit_paths(1);
            }
            sequence.evaluated = context.truncate(sequence.slot, sequence.evaluated);
            let mut rows = Vec::new();
            let retry = plan::plan_alone(step.id, sequence, &mut rows);
            let result = if alone { Err(error.clone()) } else { self.forward(&[retry], &rows, context) };
            if let (Err(error), Some(sequence)) = (result, self.running.get_mut(&step.id)) {
                tracing::warn!(%error, "a sequence failed");
                sequence.fail(&error);
                // The state of its cache is unknown.
                context.clear(sequence.slot);
                sequence.evaluated = 0;
            }
        }
    }

    fn advance(
        &mut self,
        planned: &PlannedStep,
        batch_cost: &BatchCost,
        context: &mut BatchContext<'_>,
    ) -> Result<(), SessionError> {
        let Some(sequence) = self.running.get_mut(&planned.id) else { return Ok(()) };
        let replied = match planned.step {
            Step::Prefill { rows } => {
                sequence.evaluated += rows;
                sequence.save_state(context);
                sequence.finish_prefill()
            }
            Step::Token { row, rows } => {
                let now = Instant::now();
                self.verify_context.elapsed = now.saturating_duration_since(sequence.last_step_at);
                self.verify_context.cost = batch_cost.attribute(rows, self.verify_context.elapsed);
                sequence.last_step_at = now;
                self.in_progress = sequence.work.take();
                let work = &mut self.in_progress;
                let replied = match work {
                    Some(Work::Propose { .. }) => {
                        propose::advance(sequence, work, row, context, &mut self.verify_context)
                    }
                    Some(Work::Score { .. }) => Ok(score::advance(sequence, work, row, context)),
                    Some(_) => verify::advance(sequence, work, row, context, &mut self.verify_context),
                    None => Ok(false),
                };
                sequence.work = self.in_progress.take();
                replied?
            }
        };
        if replied {
            sequence.think_time.on_reply();
            sequence.panics = 0;
        }
        Ok(())
    }

    fn submit(&mut self, id: u64, work: Work, sent_at: Instant, context: &mut BatchContext<'_>) {
        // The session sees the dropped reply channel and reports that the engine has stopped.
        let Some(sequence) = self.running.get_mut(&id) else { return };
        sequence.think_time.on_request(sent_at);
        sequence.last_step_at = sent_at;
        if sequence.finished {
            work.fail(&SessionError::Finished);
        } else if let Some(token) = work.find_unknown_token(context.vocabulary) {
            // The session may send other work.
            work.fail(&SessionError::UnknownToken(token));
        } else {
            sequence.work = Some(work);
            self.begin(id, context);
        }
    }

    /// Prepares the work of a sequence, and replies if no pass is necessary.
    fn begin(&mut self, id: u64, context: &mut BatchContext<'_>) {
        self.suspect(id);
        let Some(sequence) = self.running.get_mut(&id) else { return };
        self.in_progress = sequence.work.take();
        let begin_context = BeginContext {
            context_size: self.context_size,
            slots: &mut self.slots,
            weights: &self.verify_context.weights,
        };
        let begun = begin::begin(sequence, &mut self.in_progress, begin_context, context);
        sequence.work = self.in_progress.take();
        if let Err(error) = begun {
            sequence.fail(&error);
        }
        self.suspects.clear();
    }

    /// Clears and releases the slots of a tree's branches.
    fn release_branches(&mut self, id: u64, context: &mut BatchContext<'_>) {
        let Some(sequence) = self.running.get_mut(&id) else { return };
        for branch in sequence.branches.drain(..) {
            context.clear(branch);
            self.slots.release(branch, Vec::new());
        }
    }

    fn close(&mut self, id: u64, context: &mut BatchContext<'_>) {
        self.release_branches(id, context);
        self.remove(id);
    }

    /// Removes a sequence without branches, or a queued request.
    fn remove(&mut self, id: u64) {
        let stats = &self.verify_context.stats;
        if let Some(mut sequence) = self.running.remove(&id) {
            sequence.tokens.truncate(sequence.evaluated);
            self.slots.release(sequence.slot, sequence.tokens);
            stats.active_sequences.fetch_sub(1, Ordering::AcqRel);
        } else if let Some(index) = self.queue.iter().position(|request| request.id == id) {
            self.queue.remove(index);
            stats.queued_requests.fetch_sub(1, Ordering::AcqRel);
        }
    }
}
