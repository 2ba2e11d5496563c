//! Judging the rows of a verification or of a decode: the target's own tokens are committed.

use std::sync::atomic::Ordering;

use super::Work;
use super::context::Context;
use super::queue::Judge;
use super::sequence::Sequence;
use crate::sampling::logprobs;
use crate::{Committed, Finish, SessionError, TokenId, Verified};

/// Cuts what was asked for to what may still be generated.
pub(super) fn begin(sequence: &mut Sequence, context_size: usize) {
    let room = context_size.saturating_sub(sequence.tokens.len());
    let most = sequence.remaining().min(room).saturating_sub(1);
    if let Some(Work::Verify { draft, .. }) = &mut sequence.work {
        draft.truncate(most);
    }
}

/// Commits from the logits of `row` on and answers; true when the session was answered.
pub(super) fn advance(
    sequence: &mut Sequence,
    work: Work,
    row: usize,
    context: &mut Context<'_>,
    judge: &mut Judge,
) -> Result<bool, SessionError> {
    let draft: &[TokenId] = match &work {
        // After a tie the rest of the draft is dropped.
        Work::Verify { draft, .. } if sequence.partial.is_none() => draft,
        _ => &[],
    };
    let mut verified = sequence.partial.take().unwrap_or_default();
    let rows_in_cache = sequence.tokens.len() + draft.len();
    let judged = judge_rows(sequence, draft, row, &mut verified, context, judge);
    sequence.evaluated = rows_in_cache;
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

/// Commits while the proposals are what the target itself chooses; true at a tie.
fn judge_rows(
    sequence: &mut Sequence,
    draft: &[TokenId],
    row: usize,
    verified: &mut Verified,
    context: &Context<'_>,
    judge: &mut Judge,
) -> Result<bool, SessionError> {
    for index in 0..=draft.len() {
        let logits = context.logits(row + index);
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
        let accepted = draft.get(index) == Some(&pick.token);
        verified.accepted += u32::from(accepted);
        if sequence.constraint.as_ref().is_some_and(crate::Constraint::is_complete) {
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
            let over = left == 0 || verified.finish.is_some();
            if steps.send(Ok(verified)).is_ok() && !over {
                sequence.work = Some(Work::Decode { left, steps });
            }
            false
        }
        other => {
            sequence.work = Some(other);
            false
        }
    }
}
