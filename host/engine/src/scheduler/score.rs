//! Scoring of a given text: the log-probability of each token, from the row before it.

use tightwad_core::{TokenId, TokenScore};

use crate::error::SessionError;
use crate::sampling::logprobs::logprobs;
use crate::scheduler::command::Work;
use crate::scheduler::context::BatchContext;
use crate::scheduler::rows::score_chunk;
use crate::scheduler::sequence::Sequence;

/// Rejects a text that does not fit the context, and replies immediately to an empty text.
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

/// Scores tokens from the logits of `row` on. Returns true if it sent the reply.
pub(crate) fn advance(sequence: &mut Sequence, work: Work, row: usize, context: &BatchContext<'_>) -> bool {
    let Work::Score { text, mut scored, reply } = work else {
        sequence.work = Some(work);
        return false;
    };
    let evaluated = score_chunk(&text, scored.len()).to_vec();
    let first = scored.len();
    for (offset, token) in text[first..=first + evaluated.len()].iter().enumerate() {
        scored.push(score(context.logits(row + offset), *token));
    }
    sequence.evaluated = sequence.tokens.len() + evaluated.len();
    sequence.tokens.extend(evaluated);
    if scored.len() < text.len() {
        // The next pass begins with the first token that no pass has evaluated.
        sequence.tokens.push(text[scored.len() - 1]);
        sequence.work = Some(Work::Score { text, scored, reply });
        return false;
    }
    sequence.finished = true;
    reply.send(Ok(scored)).is_ok()
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
