//! Scoring of a given text: the log-probability of each token, from the row before it.

use tightwad_core::{TokenId, TokenScore};

use crate::error::SessionError;
use crate::sampling::logprobs::logprobs;
use crate::scheduler::command::Work;
use crate::scheduler::context::BatchContext;
use crate::scheduler::rows::score_chunk;
use crate::scheduler::sequence::Sequence;

/// Rejects a text that does not fit the context, and replies immediately to an empty text.
pub(crate) fn begin(
    sequence: &Sequence,
    work: &mut Option<Work>,
    context_size: usize,
) -> Result<(), SessionError> {
    let Some(Work::Score { text, .. }) = work else { return Ok(()) };
    let (prompt, generate) = (sequence.tokens.len() as u32, text.len() as u32);
    if sequence.tokens.len() + text.len() > context_size {
        return Err(SessionError::TooLong { context: context_size as u32, prompt, generate });
    }
    if text.is_empty() {
        reply(work);
    }
    Ok(())
}

/// Scores tokens from the logits of `row` on. Takes `work` and returns true if it sent the reply.
pub(crate) fn advance(
    sequence: &mut Sequence,
    work: &mut Option<Work>,
    row: usize,
    context: &BatchContext<'_>,
) -> bool {
    let Some(Work::Score { text, scored, .. }) = work else { return false };
    let evaluated = score_chunk(text, scored.len()).to_vec();
    let first = scored.len();
    for (offset, token) in text[first..=first + evaluated.len()].iter().enumerate() {
        scored.push(score(context.logits(row + offset), *token));
    }
    sequence.evaluated = sequence.tokens.len() + evaluated.len();
    sequence.tokens.extend(evaluated);
    if scored.len() < text.len() {
        // The next pass begins with the first token that no pass has evaluated.
        sequence.tokens.push(text[scored.len() - 1]);
        return false;
    }
    sequence.finished = true;
    reply(work)
}

/// Sends the scores. Returns false if the session is closed.
fn reply(work: &mut Option<Work>) -> bool {
    match work.take() {
        Some(Work::Score { scored, reply, .. }) => reply.send(Ok(scored)).is_ok(),
        other => {
            *work = other;
            false
        }
    }
}

fn score(logits: &[f32], token: TokenId) -> TokenScore {
    let result = logprobs(logits, token, 1);
    let logit_of_token = logits.get(token as usize).copied().unwrap_or(f32::NEG_INFINITY);
    let rank = logits.iter().filter(|logit| **logit > logit_of_token).count();
    let (best, best_logprob) = result.top.first().copied().unwrap_or((token, result.logprob));
    TokenScore {
        token,
        logprob: result.logprob,
        rank: u32::try_from(rank).unwrap_or(u32::MAX),
        best,
        best_logprob,
    }
}
