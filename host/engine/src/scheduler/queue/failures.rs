//! What happens to sequences and requests after a failure of the engine.

use std::sync::atomic::Ordering;

use crate::error::SessionError;
use crate::sampling::sampler::Sampler;
use crate::scheduler::command::Command;
use crate::scheduler::queue::{QueuedRequest, Sequences};

/// The number of panics without a reply between them after which a sequence fails.
const MAX_PANICS: u32 = 2;

impl Sequences {
    /// Prepares all sequences for a new, empty context after a panic with the message `reason`. A sequence that
    /// took part in too many panics fails. Returns false if the panic did not concern a sequence.
    pub(crate) fn recover(&mut self, reason: &str) -> bool {
        let suspects = std::mem::take(&mut self.suspects);
        let only = suspects.first().and_then(|id| self.running.get_mut(id));
        if let (Some(work), Some(sequence)) = (self.in_progress.take(), only) {
            sequence.work = Some(work);
        }
        self.verify_context.sampler = Sampler::default();
        self.slots.reset();
        for (id, sequence) in &mut self.running {
            // There is a slot for each running sequence.
            sequence.restart(self.slots.lease_any().unwrap_or_default());
            sequence.panics += u32::from(suspects.contains(id));
            if sequence.panics >= MAX_PANICS {
                let (panics, reason) = (sequence.panics, reason.to_owned());
                sequence.fail(&SessionError::Panicked { panics, reason });
            }
        }
        !suspects.is_empty()
    }

    /// Fails all sequences and all queued requests.
    pub(crate) fn fail_all(&mut self, error: &SessionError) {
        self.running.values_mut().for_each(|sequence| sequence.fail(error));
        for QueuedRequest { id, params, reply } in std::mem::take(&mut self.queue) {
            self.refuse(Command::Open { id, params, reply }, error);
        }
    }

    /// Handles a command while there is no context.
    pub(crate) fn refuse(&mut self, command: Command, error: &SessionError) {
        match command {
            Command::Open { reply, .. } => {
                self.verify_context.stats.queued_requests.fetch_sub(1, Ordering::AcqRel);
                // The caller may have stopped waiting.
                let _ = reply.send(Err(error.clone()));
            }
            Command::Close { id } => self.remove(id),
            Command::Work { work, .. } => work.fail(error),
            Command::EnableHeads => self.uses_heads = true,
            Command::ProposeWithHeads(request) => drop(request.reply.send(Err(error.clone()))),
        }
    }
}
