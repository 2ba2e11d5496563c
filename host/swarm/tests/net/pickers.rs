//! Pickers for the tests.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tightwad_swarm::{Event, Fetch, PeerId, PickError, Picker, Slot, Task};

/// All events that a picker received.
pub(crate) type Log = Arc<Mutex<Vec<Event>>>;

/// Picks in order. Near the end, picks every remaining piece from every peer.
#[derive(Default)]
pub(crate) struct InOrder {
    pub(crate) log: Log,
    wanted: Vec<u32>,
    done: HashSet<u32>,
    have: HashMap<PeerId, HashSet<u32>>,
    running: HashSet<(u32, PeerId)>,
}

impl InOrder {
    pub(crate) fn logged() -> (Box<dyn Picker>, Log) {
        let picker = Self::default();
        let log = picker.log.clone();
        (Box::new(picker), log)
    }

    fn on_event(&mut self, event: &Event) {
        match event {
            Event::Joined(peer) => assert!(self.have.insert(*peer, HashSet::new()).is_none()),
            Event::Left(peer) => {
                assert!(self.have.remove(peer).is_some());
                assert!(self.running.iter().all(|(_, other)| other != peer), "a fetch outlives its peer");
            }
            Event::Have(peer, pieces) => {
                let have = self.have.get_mut(peer).unwrap();
                assert!(pieces.iter().all(|piece| have.insert(*piece)), "a piece was reported twice");
            }
            Event::InProgress(peer, pieces) => {
                assert!(
                    pieces.iter().all(|piece| !self.have[peer].contains(piece)),
                    "the peer has the piece already"
                );
            }
            Event::FetchEnded(result) => {
                assert!(self.running.remove(&(result.piece, result.peer)), "a fetch ended twice");
                if result.fault.is_none() {
                    self.done.insert(result.piece);
                }
            }
        }
    }
}

#[async_trait]
impl Picker for InOrder {
    async fn start(&mut self, task: &Task) -> Result<(), PickError> {
        self.wanted.clone_from(&task.wanted);
        Ok(())
    }

    async fn pick(
        &mut self,
        _: Duration,
        events: Vec<Event>,
        slots: &[Slot],
    ) -> Result<Vec<Fetch>, PickError> {
        for event in &events {
            self.on_event(event);
        }
        self.log.lock().unwrap().extend(events);
        let mut picks = Vec::new();
        for slot in slots {
            for _ in 0..slot.free {
                let is_open = |piece: &&u32| {
                    !self.done.contains(*piece)
                        && self.have[&slot.peer].contains(*piece)
                        && !self.running.contains(&(**piece, slot.peer))
                };
                let is_unfetched = |piece: &&u32| self.running.iter().all(|(other, _)| other != *piece);
                let open: Vec<_> = self.wanted.iter().filter(is_open).collect();
                let Some(piece) = open.iter().copied().find(is_unfetched).or(open.first().copied()) else {
                    break;
                };
                self.running.insert((*piece, slot.peer));
                picks.push(Fetch { peer: slot.peer, piece: *piece });
            }
        }
        Ok(picks)
    }
}

/// Fails at the start, or after `picks` successful calls of `pick`.
pub(crate) struct Failing {
    pub(crate) at_start: bool,
    pub(crate) picks: u32,
    pub(crate) inner: InOrder,
}

#[async_trait]
impl Picker for Failing {
    async fn start(&mut self, task: &Task) -> Result<(), PickError> {
        if self.at_start {
            return Err(PickError("trapped at the start".into()));
        }
        self.inner.start(task).await
    }

    async fn pick(
        &mut self,
        now: Duration,
        events: Vec<Event>,
        slots: &[Slot],
    ) -> Result<Vec<Fetch>, PickError> {
        if self.picks == 0 {
            return Err(PickError("trapped".into()));
        }
        self.picks -= 1;
        self.inner.pick(now, events, slots).await
    }
}

/// Picks unknown peers and unknown pieces only.
pub(crate) struct InvalidPicks;

#[async_trait]
impl Picker for InvalidPicks {
    async fn start(&mut self, _: &Task) -> Result<(), PickError> {
        Ok(())
    }

    async fn pick(&mut self, _: Duration, _: Vec<Event>, slots: &[Slot]) -> Result<Vec<Fetch>, PickError> {
        let known = slots.first().map_or(PeerId(7), |slot| slot.peer);
        let picks = [(PeerId(u32::MAX), 0), (PeerId(99), 1), (known, u32::MAX), (known, 1_000_000)];
        Ok(picks.map(|(peer, piece)| Fetch { peer, piece }).to_vec())
    }
}
