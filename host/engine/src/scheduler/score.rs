//! Scoring a given text: the log-probability of each of its tokens, from the rows before them.

use tightwad_core::{Scored, TokenId};

use crate::error::SessionError;
use crate::sampling::logprobs::logprobs;
use crate::scheduler::command::Work;
use crate::scheduler::context::Context;
use crate::scheduler::rows::chunk;
use crate::scheduler::sequence::Sequence;

/// Refuses a text that does not fit the context, or that has no token.
pub(crate) fn begin(sequence: &mut Sequence, context_size: usize) {
    let Some(Work::Score { text, .. }) = &sequence.work else { return };
    let (prompt, generate) = (sequence.tokens.len() as u32, text.len() as u32);
    if text.is_empty() {
        if let Some(Work::Score { reply, .. }) = sequence.work.take() {
            let _ = reply.send(Ok(Vec::new()));
        }
    } else if sequence.tokens.len() + text.len() > context_size {
        sequence.fail(&SessionError::TooLong { context: context_size as u32, prompt, generate });
    }
}

/// Scores from the logits of `row` on; true when the session was answered.
pub(crate) fn advance(sequence: &mut Sequence, work: Work, row: usize, context: &Context<'_>) -> bool {
    let Work::Score { text, mut scored, reply } = work else {
        sequence.work = Some(work);
        return false;
    };
    let evaluated = chunk(&text, scored.len()).to_vec();
    let from = scored.len();
    for (offset, token) in text[from..=from + evaluated.len()].iter().enumerate() {
        scored.push(score(context.logits(row + offset), *token));
    }
    sequence.evaluated = sequence.tokens.len() + evaluated.len();
    sequence.tokens.extend(evaluated);
    if scored.len() < text.len() {
        // The next pass begins with the first token that no row has seen.
        sequence.tokens.push(text[scored.len() - 1]);
        sequence.work = Some(Work::Score { text, scored, reply });
        return false;
    }
    sequence.finished = true;
    reply.send(Ok(scored)).is_ok()
}

fn score(logits: &[f32], token: TokenId) -> Scored {
    let found = logprobs(logits, token, 1);
    let own = logits.get(token as usize).copied().unwrap_or(f32::NEG_INFINITY);
    let rank = logits.iter().filter(|logit| **logit > own).count();
    let (best, best_logprob) = found.top.first().copied().unwrap_or((token, found.logprob));
    Scored {
        token,
        logprob: found.logprob,
        rank: u32::try_from(rank).unwrap_or(u32::MAX),
        best,
        best_logprob,
    }
}
