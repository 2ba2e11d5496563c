//! Judging the rows of a verification or of a decode: the target's own tokens are committed.

use std::sync::atomic::Ordering;

use tightwad_core::{Committed, Finish, TokenId, Verified};

use crate::error::SessionError;
use crate::sampling::logprobs::logprobs;
use crate::scheduler::command::Work;
use crate::scheduler::context::{Context, MAX_ROWS};
use crate::scheduler::rows::TAIL;
use crate::scheduler::sequence::Sequence;
use crate::scheduler::slots::Slots;
use crate::scheduler::verify_context::Judge;

/// Cuts what was asked for to what may still be generated, and to as many paths as there are slots.
pub(crate) fn begin(
    sequence: &mut Sequence,
    context_size: usize,
    slots: &mut Slots,
    context: &mut Context<'_>,
) {
    let room = context_size.saturating_sub(sequence.tokens.len());
    let most = sequence.remaining().min(room).saturating_sub(1);
    let pending = sequence.pending();
    let Some(Work::Verify { draft, .. }) = &mut sequence.work else { return };
    draft.truncate(most.min(MAX_ROWS / 2));
    // llama.cpp would refuse the whole pass, everyone's work with it.
    draft.keep_known(context.vocabulary);
    // Everything must fit into one pass, each path behind pending tokens of its own.
    draft.keep_rows(MAX_ROWS, TAIL + 1);
    // A branch is a copy of the cache: what is not in it yet has to be evaluated in each.
    let branches = if pending <= TAIL { draft.paths().len() } else { 1 };
    for _ in 1..branches {
        let Some(branch) = slots.borrow() else { break };
        sequence.branches.push(branch);
        context.copy(sequence.slot, branch);
    }
    draft.keep_paths(1 + sequence.branches.len());
}

/// Commits from the logits of `row` on and answers; true when the session was answered.
pub(crate) fn advance(
    sequence: &mut Sequence,
    work: Work,
    row: usize,
    context: &mut Context<'_>,
    judge: &mut Judge,
) -> Result<bool, SessionError> {
    let paths: &[Vec<TokenId>] = match &work {
        // After a tie the rest of the draft is dropped.
        Work::Verify { draft, .. } if sequence.partial.is_none() => draft.paths(),
        _ => &[],
    };
    let mut verified = sequence.partial.take().unwrap_or_default();
    verified.took += judge.took;
    verified.cost += judge.cost;
    let before = sequence.tokens.len();
    let mut tree = Tree::new(paths, row, sequence.pending());
    if !paths.is_empty() {
        verified.rows = u32::try_from(tree.rows()).unwrap_or(u32::MAX);
    }
    let judged = judge_rows(sequence, &mut tree, &mut verified, context, judge);
    if let Some(branch) = tree.best.checked_sub(1) {
        std::mem::swap(&mut sequence.slot, &mut sequence.branches[branch]);
    }
    sequence.evaluated = before + tree.depth(tree.best);
    sequence.keep(sequence.tokens.len() - 1, context);
    let tie = match judged {
        Ok(tie) => tie,
        Err(error) => {
            sequence.work = Some(work);
            return Err(error);
        }
    };
    if tie {
        verified.ties += 1;
        judge.stats.ties.fetch_add(1, Ordering::Relaxed);
        sequence.partial = Some(verified);
        sequence.work = Some(work);
        return Ok(false);
    }
    judge.stats.committed.fetch_add(verified.committed.len() as u64, Ordering::Relaxed);
    sequence.finished = verified.finish.is_some();
    Ok(answer(sequence, work, verified))
}

/// The rows of a tree: one path after the other, each with the pending tokens before it.
struct Tree<'a> {
    paths: &'a [Vec<TokenId>],
    first: usize,
    pending: usize,
    /// The path that the committed tokens follow, or followed longest.
    best: usize,
}

impl<'a> Tree<'a> {
    fn new(paths: &'a [Vec<TokenId>], first: usize, pending: usize) -> Self {
        Self { paths, first, pending, best: 0 }
    }

    fn depth(&self, path: usize) -> usize {
        self.paths.get(path).map_or(0, Vec::len)
    }

    fn rows(&self) -> usize {
        self.paths.iter().map(|path| self.pending + path.len()).sum()
    }

    /// The row whose logits choose the token after `depth` tokens of the best path.
    fn row(&self, depth: usize) -> usize {
        let before: usize = (0..self.best).map(|path| self.pending + self.depth(path)).sum();
        self.first + before + depth
    }

    /// True when some path goes on with `token` after the first `depth` tokens of the best one.
    fn follow(&mut self, depth: usize, token: TokenId) -> bool {
        let Some(own) = self.paths.get(self.best) else { return false };
        let common = &own[..depth];
        let goes_on = |path: &Vec<TokenId>| path.starts_with(common) && path.get(depth) == Some(&token);
        match self.paths.iter().position(goes_on) {
            Some(path) => {
                self.best = path;
                true
            }
            None => false,
        }
    }
}

/// Commits while the proposals are what the target itself chooses; true at a tie.
fn judge_rows(
    sequence: &mut Sequence,
    tree: &mut Tree<'_>,
    verified: &mut Verified,
    context: &Context<'_>,
    judge: &mut Judge,
) -> Result<bool, SessionError> {
    for depth in 0.. {
        let logits = context.logits(tree.row(depth));
        let pick = sequence.pick(logits, &mut judge.picker, judge.tie_threshold)?;
        if pick.tie {
            return Ok(true);
        }
        if judge.weights.ends(pick.token) {
            verified.finish = Some(Finish::Stop);
            break;
        }
        let wanted = sequence.sampling.logprobs;
        let logprobs = wanted.map(|n| logprobs(logits, pick.token, usize::from(n)));
        verified.committed.push(Committed { token: pick.token, logprobs });
        sequence.push(pick.token)?;
        let accepted = tree.follow(depth, pick.token);
        verified.accepted += u32::from(accepted);
        if sequence.constraint.as_ref().is_some_and(crate::constraint::Constraint::is_complete) {
            verified.finish = Some(Finish::Stop);
        } else if sequence.remaining() == 0 {
            verified.finish = Some(Finish::Length);
        }
        if !accepted || verified.finish.is_some() {
            break;
        }
    }
    Ok(false)
}

fn answer(sequence: &mut Sequence, work: Work, verified: Verified) -> bool {
    match work {
        Work::Verify { reply, .. } => {
            let finished = verified.finish.is_some();
            reply.send(Ok(verified)).is_ok() && !finished
        }
        Work::Decode { left, steps } => {
            let left = left.saturating_sub(verified.committed.len() as u32);
            let finished = verified.finish.is_some();
            let sent = steps.send(Ok(verified)).is_ok();
            if sent && !finished && left > 0 {
                sequence.work = Some(Work::Decode { left, steps });
                return false;
            }
            sent && !finished
        }
        other => {
            sequence.work = Some(other);
            false
        }
    }
}
