//! Proposals of the model's draft heads after a running sequence.

use tightwad_core::{Proposal, TokenId};

use crate::scheduler::command::HeadRequest;
use crate::scheduler::context::BatchContext;
use crate::scheduler::propose;
use crate::scheduler::queue::Sequences;
use crate::scheduler::sequence::Sequence;
use crate::scheduler::verify_context::VerifyContext;

impl Sequences {
    /// Makes the draft heads follow all passes from now on.
    pub(super) fn enable_heads(&mut self, context: &mut BatchContext<'_>) {
        self.uses_heads = true;
        context.enable_heads();
    }

    /// Replies with proposals after the sequence that has the request's tokens. Without such a sequence, or while it has
    /// work, the reply is empty: then its target decodes.
    pub(super) fn propose_with_heads(&mut self, request: HeadRequest, context: &mut BatchContext<'_>) {
        let is_continued = |sequence: &Sequence| {
            let (prompt, output) = sequence.tokens.split_at(sequence.prompt_length);
            sequence.work.is_none()
                && !sequence.finished
                && output == request.output
                && prompt == &*request.prompt
        };
        let found = self.running.iter().find(|(_, sequence)| is_continued(sequence)).map(|(id, _)| *id);
        if let Some(id) = found {
            self.suspect(id);
        }
        let sequence = found.and_then(|id| self.running.get_mut(&id));
        let proposals = sequence.map(|sequence| {
            propose_after(sequence, &request, context, &mut self.verify_context).unwrap_or_default()
        });
        self.suspects.clear();
        // The drafter may be gone.
        let _ = request.reply.send(Ok(proposals.unwrap_or_default()));
    }
}

/// The proposals after `sequence`, which stays as it is. `None` if the heads do not know its hidden state.
fn propose_after(
    sequence: &mut Sequence,
    request: &HeadRequest,
    context: &mut BatchContext<'_>,
    verify_context: &mut VerifyContext,
) -> Option<Vec<Proposal>> {
    let (slot, length, last) = (sequence.slot, sequence.tokens.len(), *sequence.tokens.last()?);
    let max = request.max.min(sequence.remaining_tokens().saturating_sub(1) as u32) as usize;
    let heads = context.heads().filter(|_| sequence.pending_tokens() == 1 && max > 0)?;
    let constraint = sequence.constraint.clone();
    let mut proposals: Vec<Proposal> = Vec::new();
    let mut is_ready = heads.begin(slot, length - 1, last);
    while is_ready && proposals.len() < max {
        let next = propose::next(sequence, heads.logits(), request.min_probability, verify_context);
        let Some(proposal) = next.filter(|proposal| sequence.push(proposal.token).is_ok()) else { break };
        proposals.push(proposal);
        is_ready = proposals.len() < max && heads.advance(slot, sequence.tokens.len() - 1, proposal.token);
    }
    heads.end(slot);
    let proposed: Vec<TokenId> = sequence.tokens.drain(length..).collect();
    proposed.into_iter().rev().for_each(|token| sequence.history.pop(token));
    sequence.constraint = constraint;
    Some(proposals)
}
