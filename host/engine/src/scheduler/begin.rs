//! Prepares new work of a sequence.

use crate::error::SessionError;
use crate::scheduler::command::Work;
use crate::scheduler::context::BatchContext;
use crate::scheduler::sequence::Sequence;
use crate::scheduler::slots::Slots;
use crate::scheduler::{propose, score, verify};
use crate::weights::Weights;

/// The state that new work needs beside its sequence and the cache.
pub(crate) struct BeginContext<'a> {
    /// Context length of a sequence in tokens.
    pub context_size: usize,
    pub slots: &'a mut Slots,
    pub weights: &'a Weights,
}

/// Prepares `work`. Takes it and replies if no pass is necessary.
pub(crate) fn begin(
    sequence: &mut Sequence,
    work: &mut Option<Work>,
    begin_context: BeginContext<'_>,
    context: &mut BatchContext<'_>,
) -> Result<(), SessionError> {
    let BeginContext { context_size, slots, weights } = begin_context;
    match work {
        None => {}
        Some(Work::Prefill { .. }) => open_without_prefill(sequence, work),
        Some(Work::Score { .. }) => {
            sequence.make_last_token_pending(context);
            return score::begin(sequence, work, context_size);
        }
        Some(Work::Propose { .. }) => propose::begin(sequence, work, context_size, context),
        Some(Work::Accept { .. }) => accept_tokens(sequence, work, weights),
        Some(Work::Verify { .. } | Work::Decode { .. }) => {
            sequence.make_last_token_pending(context);
            verify::begin(sequence, work, context_size, slots, context);
        }
    }
    Ok(())
}

/// Replies to the opening, unless it waits for the evaluation of the prompt.
fn open_without_prefill(sequence: &mut Sequence, work: &mut Option<Work>) {
    if sequence.needs_prefill() {
        return;
    }
    if let Some(Work::Prefill { reused, reply }) = work.take() {
        // The caller may have stopped waiting; the session then closes itself.
        let _ = reply.send(Ok(reused));
        sequence.think_time.on_reply();
    }
}

/// Appends the tokens immediately. The next pass evaluates these tokens.
fn accept_tokens(sequence: &mut Sequence, work: &mut Option<Work>, weights: &Weights) {
    let Some(Work::Accept { tokens, .. }) = work else { return };
    let must_stop = |token| weights.ends_turn(token) || token >= weights.vocabulary_size();
    let accepted = sequence.accept(tokens, must_stop);
    sequence.mark_committed();
    if let Some(Work::Accept { reply, .. }) = work.take() {
        // The session may be closed already, so a failed reply is not an error.
        let _ = reply.send(accepted);
    }
}
