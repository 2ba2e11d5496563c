//! Asks the picker and begins its fetches. Where the picker fails, pieces come in order.

use std::mem;
use std::time::Duration;

use tokio::time::Instant;

use crate::net::pull::limits::Limits;
use crate::net::pull::transfers::Transfers;
use crate::picker::{Picker, Slot, Task};

/// The picker of a pull, and what is done when it does not work.
pub(crate) struct Scheduler {
    picker: Box<dyn Picker>,
    began: Instant,
    /// Largest number of picks that one answer may have.
    picks: usize,
    patience: Duration,
    /// Why the picker failed.
    pub(crate) failed: Option<String>,
    /// Since when the picker has chosen nothing although it could.
    idle_since: Option<Instant>,
    /// How often the scheduler chose because the picker did not.
    pub(crate) helped: u32,
}

impl Scheduler {
    pub(crate) fn new(picker: Box<dyn Picker>, limits: &Limits) -> Self {
        Self {
            picker,
            began: Instant::now(),
            // A slot or two for each piece is all that makes sense of any answer.
            picks: 4 * limits.requests as usize,
            patience: limits.patience,
            failed: None,
            idle_since: None,
            helped: 0,
        }
    }

    /// How long the pull has run.
    pub(crate) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Gives the picker its task.
    pub(crate) async fn start(&mut self, task: &Task) {
        if let Err(error) = self.picker.start(task).await {
            tracing::warn!(%error, "the picker failed at the start: pieces are fetched in order");
            self.failed = Some(error.to_string());
        }
    }

    /// Asks the picker, and begins the fetches that it picked.
    pub(crate) async fn choose(&mut self, transfers: &mut Transfers) {
        let slots = transfers.slots();
        if self.failed.is_some() {
            transfers.events.clear();
            transfers.in_order(&slots);
            return;
        }
        let (now, events) = (self.began.elapsed(), mem::take(&mut transfers.events));
        match self.picker.pick(now, events, &slots).await {
            Ok(picks) => {
                for pick in picks.into_iter().take(self.picks) {
                    transfers.accept(pick, &slots);
                }
                self.help(transfers, &slots);
            }
            Err(error) => {
                tracing::warn!(%error, "the picker failed: pieces are fetched in order from now on");
                self.failed = Some(error.to_string());
                transfers.in_order(&slots);
            }
        }
    }

    /// A picker that chooses nothing for too long, though nothing is being fetched and something could be, is
    /// helped once.
    fn help(&mut self, transfers: &mut Transfers, slots: &[Slot]) {
        if transfers.running() > 0 || !slots.iter().any(|slot| transfers.next_for(slot).is_some()) {
            self.idle_since = None;
            return;
        }
        let since = *self.idle_since.get_or_insert_with(Instant::now);
        if since.elapsed() >= self.patience {
            self.idle_since = None;
            self.helped += 1;
            transfers.in_order(slots);
        }
    }
}
