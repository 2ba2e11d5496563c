//! Which picks are done: a picker may be wrong, but then nothing happens. Where it fails, pieces come in order.

use std::collections::HashSet;
use std::mem;
use std::time::Duration;

use tokio::time::Instant;

use crate::net::pull::drive::Driver;
use crate::picker::{Event, Fault, Fetch, Fetched, Slot};

impl Driver {
    /// Asks the picker, and begins the fetches that it picked.
    pub(crate) async fn choose(&mut self) {
        let together = self.limits.requests.saturating_sub(self.running());
        let slots = self.sources.slots(self.limits.requests_a_peer, together);
        if self.failed.is_some() {
            self.events.clear();
            self.in_order(&slots);
            return;
        }
        let (now, events) = (self.began.elapsed(), mem::take(&mut self.events));
        match self.picker.pick(now, events, &slots).await {
            Ok(picks) => {
                // A slot or two for each piece is all that makes sense of any answer.
                for pick in picks.into_iter().take(4 * self.limits.requests as usize) {
                    self.accept(pick, &slots);
                }
                self.help(&slots);
            }
            Err(error) => {
                tracing::warn!(%error, "the picker failed: pieces are fetched in order from now on");
                self.failed = Some(error.to_string());
                self.in_order(&slots);
            }
        }
    }

    /// Begins `pick`, when it makes sense; else the picker hears that it is over, and nobody's fault.
    fn accept(&mut self, pick: Fetch, slots: &[Slot]) {
        let offered = slots.iter().any(|slot| slot.peer == pick.peer);
        let Some(source) = self.sources.find(pick.peer).filter(|_| offered) else { return };
        let known = &self.sources.all[source];
        let has = known.has.get(pick.piece as usize).copied().unwrap_or(false);
        let free = known.free(self.limits.requests_a_peer) > 0 && self.running() < self.limits.requests;
        if has && free && self.left.contains(&pick.piece) && !self.is_fetched_from(pick.piece, source) {
            self.begin(source, pick.piece);
        } else {
            let (peer, piece, fault) = (pick.peer, pick.piece, Some(Fault::Cancelled));
            self.events.push(Event::Done(Fetched { peer, piece, bytes: 0, took: Duration::ZERO, fault }));
        }
    }

    /// A picker that chooses nothing for too long, though nothing is being fetched and something could be, is
    /// helped once.
    fn help(&mut self, slots: &[Slot]) {
        if self.running() > 0 || !slots.iter().any(|slot| self.next_for(slot).is_some()) {
            self.idle_since = None;
            return;
        }
        let since = *self.idle_since.get_or_insert_with(Instant::now);
        if since.elapsed() >= self.limits.patience {
            self.idle_since = None;
            self.helped += 1;
            self.in_order(slots);
        }
    }

    /// One fetch for each peer in turn, until nobody has a free slot or there is nothing to do.
    fn in_order(&mut self, slots: &[Slot]) {
        let mut done = HashSet::new();
        while done.len() < slots.len() {
            for (number, slot) in slots.iter().enumerate() {
                let next = self.next_for(slot);
                if next.is_none() {
                    done.insert(number);
                }
                if let Some((source, piece)) = next {
                    self.begin(source, piece);
                }
            }
        }
    }

    /// The first piece that nobody fetches, or, when all are being fetched, the first that only one does.
    fn next_for(&self, slot: &Slot) -> Option<(usize, u32)> {
        let source = self.sources.find(slot.peer)?;
        let known = &self.sources.all[source];
        if known.free(self.limits.requests_a_peer) == 0 || self.running() >= self.limits.requests {
            return None;
        }
        let has = |piece: &&u32| known.has.get(**piece as usize) == Some(&true) && self.left.contains(piece);
        let open = || self.order.iter().filter(has);
        let new = open().find(|piece| self.fetches_of(**piece) == 0);
        let shared =
            || open().find(|piece| self.fetches_of(**piece) == 1 && !self.is_fetched_from(**piece, source));
        new.or_else(shared).map(|piece| (source, *piece))
    }
}
