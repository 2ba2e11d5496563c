//! Proposals of the model's draft heads after a running sequence.

use tightwad_core::Proposal;

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

    /// Replies with proposals after the sequence that begins with the request's tokens: it may be ahead, while it decodes.
    /// Without such a sequence the reply is empty.
    pub(super) fn propose_with_heads(&mut self, request: HeadRequest, context: &mut BatchContext<'_>) {
        let is_continued = |sequence: &Sequence| {
            let (prompt, output) = sequence.tokens.split_at(sequence.prompt_length);
            !sequence.finished && output.starts_with(&request.output) && prompt == &*request.prompt
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

/// The proposals after the request's tokens, as if `sequence` had no others. It stays as it is. `None` if the heads do not
/// know the hidden state there.
fn propose_after(
    sequence: &mut Sequence,
    request: &HeadRequest,
    context: &mut BatchContext<'_>,
    verify_context: &mut VerifyContext,
) -> Option<Vec<Proposal>> {
    let length = sequence.prompt_length + request.output.len();
    let (slot, last) = (sequence.slot, *sequence.tokens.get(length.checked_sub(1)?)?);
    let heads = context.heads().filter(|_| length <= sequence.evaluated + 1)?;
    let constraint = sequence.constraint.clone();
    let later_tokens = sequence.take_tokens_after(length);
    if let Some(constraint) = &mut sequence.constraint
        && constraint.rollback(later_tokens.len()).is_err()
    {
        // The drafts are merely worse without it.
        sequence.constraint = None;
    }
    let max = request.max.min(sequence.remaining_tokens().saturating_sub(1) as u32) as usize;
    let mut proposals: Vec<Proposal> = Vec::new();
    let mut is_ready = max > 0 && heads.begin(slot, length - 1, last);
    while is_ready {
        let next = propose::next(sequence, heads.logits(), request.min_probability, verify_context);
        let Some(proposal) = next.filter(|proposal| sequence.push(proposal.token).is_ok()) else { break };
        proposals.push(proposal);
        is_ready = proposals.len() < max && heads.advance(slot, sequence.tokens.len() - 1, proposal.token);
    }
    heads.end(slot);
    sequence.take_tokens_after(length);
    sequence.tokens.extend(&later_tokens);
    later_tokens.iter().for_each(|token| sequence.history.push(*token));
    sequence.constraint = constraint;
    Some(proposals)
}
