//! Asks the picker and starts its fetches. When the picker fails, fetches the pieces in order.

use std::mem;
use std::time::Duration;

use tokio::time::Instant;

use crate::net::pull::limits::PullLimits;
use crate::net::pull::transfers::Transfers;
use crate::picker::{Picker, Slot, Task};

/// The picker of a pull, and the fallback for its failures.
pub(crate) struct Scheduler {
    picker: Box<dyn Picker>,
    started: Instant,
    /// Largest number of picks per answer that the scheduler looks at.
    max_picks: usize,
    picker_timeout: Duration,
    /// The error of a picker that failed.
    pub(crate) picker_error: Option<String>,
    /// The time since which the picker has chosen nothing although a fetch was possible.
    idle_since: Option<Instant>,
    /// The number of times that the picker timed out.
    pub(crate) picker_timeouts: u32,
}

impl Scheduler {
    pub(crate) fn new(picker: Box<dyn Picker>, limits: &PullLimits) -> Self {
        Self {
            picker,
            started: Instant::now(),
            // More picks than fetches can run are useless. The factor leaves room for invalid ones.
            max_picks: 4 * limits.max_requests as usize,
            picker_timeout: limits.picker_timeout,
            picker_error: None,
            idle_since: None,
            picker_timeouts: 0,
        }
    }

    /// The duration of the pull so far.
    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Gives the picker its task.
    pub(crate) async fn start(&mut self, task: &Task) {
        if let Err(error) = self.picker.start(task).await {
            tracing::warn!(%error, "the picker failed at the start: pieces are fetched in order");
            self.picker_error = Some(error.to_string());
        }
    }

    /// Asks the picker, and starts the fetches that it picked.
    pub(crate) async fn schedule(&mut self, transfers: &mut Transfers) {
        let slots = transfers.slots();
        if self.picker_error.is_some() {
            transfers.events.clear();
            transfers.fetch_in_order(&slots);
            return;
        }
        let (now, events) = (self.started.elapsed(), mem::take(&mut transfers.events));
        match self.picker.pick(now, events, &slots).await {
            Ok(picks) => {
                for pick in picks.into_iter().take(self.max_picks) {
                    transfers.accept_pick(pick, &slots);
                }
                self.check_picker_timeout(transfers, &slots);
            }
            Err(error) => {
                tracing::warn!(%error, "the picker failed: pieces are fetched in order from now on");
                self.picker_error = Some(error.to_string());
                transfers.fetch_in_order(&slots);
            }
        }
    }

    /// Fetches pieces in order once when the picker has chosen nothing for too long. The time counts only
    /// while no fetch runs and a fetch is possible.
    fn check_picker_timeout(&mut self, transfers: &mut Transfers, slots: &[Slot]) {
        if transfers.in_flight() > 0 || !slots.iter().any(|slot| transfers.next_piece_for(slot).is_some()) {
            self.idle_since = None;
            return;
        }
        let since = *self.idle_since.get_or_insert_with(Instant::now);
        if since.elapsed() >= self.picker_timeout {
            self.idle_since = None;
            self.picker_timeouts += 1;
            transfers.fetch_in_order(slots);
        }
    }
}
