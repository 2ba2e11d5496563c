//! Drafting: one token a tick, after the target's output, with the target's settings and noise.

use tightwad_core::{Proposal, TokenId};

use crate::error::SessionError;
use crate::scheduler::command::Work;
use crate::scheduler::context::Context;
use crate::scheduler::sequence::Sequence;
use crate::scheduler::verify_context::Judge;

/// Makes the sequence's tokens the prompt and the output it must continue.
pub(crate) fn begin(sequence: &mut Sequence, context_size: usize, context: &mut Context<'_>) {
    let Some(Work::Propose { output, max, .. }) = &mut sequence.work else { return };
    let output = std::mem::take(output);
    let room = context_size.saturating_sub(sequence.prompt + output.len() + 1);
    *max = (*max).min(u32::try_from(room).unwrap_or(u32::MAX));
    let most = *max;
    let own = &sequence.tokens[sequence.prompt..];
    let common = own.iter().zip(&output).take_while(|(a, b)| a == b).count();
    sequence.truncate(sequence.prompt + common, context);
    for token in &output[common..] {
        if sequence.push(*token).is_err() {
            sequence.constraint = None;
        }
    }
    if most == 0 {
        finish(sequence);
    }
}

/// Drafts one token from the logits of `row`; true when the session was answered.
pub(crate) fn advance(
    sequence: &mut Sequence,
    work: Work,
    row: usize,
    context: &mut Context<'_>,
    judge: &mut Judge,
) -> Result<bool, SessionError> {
    let Work::Propose { output, max, min_probability, mut proposals, reply } = work else {
        sequence.work = Some(work);
        return Ok(false);
    };
    sequence.evaluated = sequence.tokens.len();
    // The last token stays unevaluated when no other follows: its logits will be wanted again.
    let token = match next(sequence, row, min_probability, context, judge) {
        Some(proposal) => {
            proposals.push(proposal);
            sequence.push(proposal.token).is_ok() && proposals.len() < max as usize
        }
        None => false,
    };
    if token {
        sequence.work = Some(Work::Propose { output, max, min_probability, proposals, reply });
        return Ok(false);
    }
    sequence.keep(sequence.tokens.len() - 1, context);
    Ok(reply.send(Ok(proposals)).is_ok())
}

fn next(
    sequence: &mut Sequence,
    row: usize,
    min_probability: f32,
    context: &Context<'_>,
    judge: &mut Judge,
) -> Option<Proposal> {
    let logits = context.logits(row);
    let token: TokenId = sequence.pick(logits, &mut judge.picker, 0.0).ok()?.token;
    let probability = judge.picker.probability(logits, &sequence.sampling, token);
    let wanted = probability >= min_probability && !judge.weights.ends(token);
    wanted.then_some(Proposal { token, probability })
}

fn finish(sequence: &mut Sequence) {
    if let Some(Work::Propose { proposals, reply, .. }) = sequence.work.take() {
        let _ = reply.send(Ok(proposals));
    }
}
