//! Verification and decoding: commits the target's own tokens from the logits of a pass.

use std::sync::atomic::Ordering;
use std::time::Instant;

use tightwad_core::{CommittedToken, FinishReason, StepResult, TokenId};

use crate::error::SessionError;
use crate::sampling::logprobs::logprobs;
use crate::scheduler::command::Work;
use crate::scheduler::context::BatchContext;
use crate::scheduler::rows::{MAX_PENDING_ROWS, MAX_ROWS};
use crate::scheduler::sequence::Sequence;
use crate::scheduler::slots::Slots;
use crate::scheduler::verify_context::VerifyContext;

/// Cuts the draft to the tokens that may still be generated, and to the first path and one further path per
/// free slot.
pub(crate) fn begin(
    sequence: &mut Sequence,
    work: &mut Option<Work>,
    context_size: usize,
    slots: &mut Slots,
    context: &mut BatchContext<'_>,
) {
    let capacity = context_size.saturating_sub(sequence.tokens.len());
    let max_length = sequence.remaining_tokens().min(capacity).saturating_sub(1);
    let pending = sequence.pending_tokens();
    let Some(Work::Verify { draft, .. }) = work else { return };
    draft.truncate(max_length.min(MAX_ROWS / 2));
    // llama.cpp would reject the whole pass, including other sequences.
    draft.cut_at_unknown_tokens(context.vocabulary);
    // All rows must fit one pass, and each path has its own pending tokens.
    draft.limit_rows(MAX_ROWS, MAX_PENDING_ROWS + 1);
    // Each branch has a copy of the cache and evaluates the pending tokens again. Recurrent states run only over as many
    // rows in each slot, so their paths would need a pass each.
    let can_branch = pending <= MAX_PENDING_ROWS && !context.is_recurrent();
    let branches = if can_branch { draft.paths().len() } else { 1 };
    for _ in 1..branches {
        let Some(branch) = slots.lease_any() else { break };
        sequence.branches.push(branch);
        context.copy_cache(sequence.slot, branch);
    }
    draft.limit_paths(1 + sequence.branches.len());
}

/// Prepares the state of a sequence for the rejection of its draft by the next pass. `may_tie`: that pass may leave a
/// position to a pass of one row.
pub(crate) fn prepare_rejection(sequence: &Sequence, may_tie: bool, context: &mut BatchContext<'_>) {
    let draft = match &sequence.work {
        Some(Work::Verify { draft, .. }) if sequence.wants_token() => draft.first_path().len(),
        Some(Work::Decode { .. }) if may_tie => 0,
        _ => return,
    };
    context.prepare_rejection(sequence.slot, draft, may_tie);
}

/// Commits tokens from the logits of `row` on. Takes `work` when it replied for the last time. Returns true if the
/// session may then send other work.
pub(crate) fn advance(
    sequence: &mut Sequence,
    work: &mut Option<Work>,
    row: usize,
    context: &mut BatchContext<'_>,
    verify_context: &mut VerifyContext,
) -> Result<bool, SessionError> {
    let paths: &[Vec<TokenId>] = match work {
        // After a tie, the rest of the draft is dropped.
        Some(Work::Verify { draft, .. }) if sequence.partial.is_none() => draft.paths(),
        _ => &[],
    };
    let mut verified = sequence.partial.take().unwrap_or_default();
    verified.elapsed += verify_context.elapsed;
    verified.cost += verify_context.cost;
    let before = sequence.tokens.len();
    let mut draft_rows = DraftRows::new(paths, row, sequence.pending_tokens());
    if !paths.is_empty() {
        verified.rows = u32::try_from(draft_rows.count()).unwrap_or(u32::MAX);
    }
    let result = accept_rows(sequence, &mut draft_rows, &mut verified, context, verify_context);
    if let Some(branch) = draft_rows.best.checked_sub(1) {
        std::mem::swap(&mut sequence.slot, &mut sequence.branches[branch]);
    }
    sequence.evaluated = before + draft_rows.depth(draft_rows.best);
    // After the end, no token needs its logits again, and a recurrent state need not return.
    let pending = usize::from(verified.finish_reason.is_none());
    let start = Instant::now();
    sequence.truncate_cache(sequence.tokens.len() - pending, context);
    context.save_at_interval(sequence.slot);
    let rollback_time = start.elapsed();
    verified.elapsed += rollback_time;
    verified.cost += rollback_time;
    sequence.last_step_at += rollback_time;
    if result? {
        verified.ties += 1;
        verify_context.stats.tied_positions.fetch_add(1, Ordering::Relaxed);
        sequence.partial = Some(verified);
        return Ok(false);
    }
    verify_context.stats.committed_tokens.fetch_add(verified.committed.len() as u64, Ordering::Relaxed);
    sequence.finished = verified.finish_reason.is_some();
    Ok(send_reply(sequence, work, verified))
}

/// The rows of a draft: the paths one after the other, each after its own copy of the pending tokens.
struct DraftRows<'a> {
    paths: &'a [Vec<TokenId>],
    first_row: usize,
    pending: usize,
    /// The path that the committed tokens follow longest.
    best: usize,
}

impl<'a> DraftRows<'a> {
    fn new(paths: &'a [Vec<TokenId>], first_row: usize, pending: usize) -> Self {
        Self { paths, first_row, pending, best: 0 }
    }

    fn depth(&self, path: usize) -> usize {
        self.paths.get(path).map_or(0, Vec::len)
    }

    fn count(&self) -> usize {
        self.paths.iter().map(|path| self.pending + path.len()).sum()
    }

    /// The row whose logits choose the token after `depth` tokens of the best path.
    fn row(&self, depth: usize) -> usize {
        let before: usize = (0..self.best).map(|path| self.pending + self.depth(path)).sum();
        self.first_row + before + depth
    }

    /// Moves to a path that continues with `token` after the first `depth` tokens of the best one. Returns
    /// false if there is none.
    fn follow(&mut self, depth: usize, token: TokenId) -> bool {
        let Some(best) = self.paths.get(self.best) else { return false };
        let common = &best[..depth];
        let continues = |path: &Vec<TokenId>| path.starts_with(common) && path.get(depth) == Some(&token);
        match self.paths.iter().position(continues) {
            Some(path) => {
                self.best = path;
                true
            }
            None => false,
        }
    }
}

/// Commits tokens as long as the target chooses the proposed tokens. Returns true at a tie.
fn accept_rows(
    sequence: &mut Sequence,
    draft_rows: &mut DraftRows<'_>,
    verified: &mut StepResult,
    context: &BatchContext<'_>,
    verify_context: &mut VerifyContext,
) -> Result<bool, SessionError> {
    for depth in 0.. {
        let logits = context.logits(draft_rows.row(depth));
        let sampled = sequence.sample(logits, &mut verify_context.sampler, verify_context.tie_threshold)?;
        if sampled.tie {
            return Ok(true);
        }
        if verify_context.weights.ends_turn(sampled.token) {
            verified.finish_reason = Some(FinishReason::Stop);
            break;
        }
        let top_count = sequence.sampling.logprobs;
        let logprobs = top_count.map(|n| logprobs(logits, sampled.token, usize::from(n)));
        verified.committed.push(CommittedToken { token: sampled.token, logprobs });
        sequence.push(sampled.token)?;
        let accepted = draft_rows.follow(depth, sampled.token);
        verified.accepted += u32::from(accepted);
        if sequence.constraint.as_ref().is_some_and(crate::constraint::Constraint::is_complete) {
            verified.finish_reason = Some(FinishReason::Stop);
        } else if sequence.remaining_tokens() == 0 {
            verified.finish_reason = Some(FinishReason::Length);
        }
        if !accepted || verified.finish_reason.is_some() {
            break;
        }
    }
    Ok(false)
}

fn send_reply(sequence: &mut Sequence, work: &mut Option<Work>, verified: StepResult) -> bool {
    sequence.mark_committed();
    let finished = verified.finish_reason.is_some();
    match work.take() {
        Some(Work::Verify { reply, .. }) => reply.send(Ok(verified)).is_ok() && !finished,
        Some(Work::Decode { remaining, steps }) => {
            let remaining = remaining.saturating_sub(verified.committed.len() as u32);
            let sent = steps.send(Ok(verified)).is_ok();
            if sent && !finished && remaining > 0 {
                *work = Some(Work::Decode { remaining, steps });
                return false;
            }
            sent && !finished
        }
        other => {
            *work = other;
            false
        }
    }
}
