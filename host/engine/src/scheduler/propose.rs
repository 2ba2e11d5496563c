//! Drafting: one token per pass, after the target's output, with the target's sampling settings and noise.

use tightwad_core::{Proposal, TokenId};

use crate::error::SessionError;
use crate::scheduler::command::Work;
use crate::scheduler::context::BatchContext;
use crate::scheduler::sequence::Sequence;
use crate::scheduler::verify_context::VerifyContext;

/// Sets the sequence's tokens to the prompt and the output that the draft continues.
pub(crate) fn begin(
    sequence: &mut Sequence,
    work: &mut Option<Work>,
    context_size: usize,
    context: &mut BatchContext<'_>,
) {
    let Some(Work::Propose { output, max, .. }) = work else { return };
    let capacity = context_size.saturating_sub(sequence.prompt_length + output.len() + 1);
    *max = (*max).min(u32::try_from(capacity).unwrap_or(u32::MAX));
    let finished = *max == 0;
    let drafted = &sequence.tokens[sequence.prompt_length..];
    let common = drafted.iter().zip(output.iter()).take_while(|(a, b)| a == b).count();
    sequence.truncate(sequence.prompt_length + common, context);
    for token in &output[common..] {
        if sequence.push(*token).is_err() {
            sequence.constraint = None;
        }
    }
    sequence.make_last_token_pending(context);
    if finished {
        reply(work);
    }
}

/// Drafts one token from the logits of `row`. Takes `work` and returns true if it sent the reply.
pub(crate) fn advance(
    sequence: &mut Sequence,
    work: &mut Option<Work>,
    row: usize,
    context: &mut BatchContext<'_>,
    verify_context: &mut VerifyContext,
) -> Result<bool, SessionError> {
    let Some(Work::Propose { max, min_probability, proposals, .. }) = work else { return Ok(false) };
    sequence.evaluated = sequence.tokens.len();
    if proposals.is_empty() && *max > 1 {
        // The next call comes back here if the target rejects the proposals.
        context.save_for_round(sequence.slot);
    }
    let proceed = match next(sequence, context.logits(row), *min_probability, verify_context) {
        Some(proposal) => {
            proposals.push(proposal);
            sequence.push(proposal.token).is_ok() && proposals.len() < *max as usize
        }
        None => false,
    };
    if proceed {
        return Ok(false);
    }
    Ok(reply(work))
}

/// The proposal for the next token from `logits`. `None` if it is less probable than `min_probability`, or ends the turn.
pub(crate) fn next(
    sequence: &mut Sequence,
    logits: &[f32],
    min_probability: f32,
    verify_context: &mut VerifyContext,
) -> Option<Proposal> {
    let token: TokenId = sequence.sample(logits, &mut verify_context.sampler, 0.0).ok()?.token;
    let probability = verify_context.sampler.probability(logits, &sequence.sampling, token);
    let accepted = probability >= min_probability && !verify_context.weights.ends_turn(token);
    accepted.then_some(Proposal { token, probability })
}

/// Sends the proposals. Returns false if the session is closed.
fn reply(work: &mut Option<Work>) -> bool {
    match work.take() {
        Some(Work::Propose { proposals, reply, .. }) => reply.send(Ok(proposals)).is_ok(),
        other => {
            *work = other;
            false
        }
    }
}
