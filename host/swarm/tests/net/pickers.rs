//! Pickers of the tests.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tightwad_swarm::{Event, Fetch, PeerId, PickError, Picker, Slot, Task};

/// All that a picker was told.
pub(crate) type Log = Arc<Mutex<Vec<Event>>>;

/// Picks in order; in the end every piece from everybody.
#[derive(Default)]
pub(crate) struct Plain {
    pub(crate) log: Log,
    wanted: Vec<u32>,
    done: HashSet<u32>,
    has: HashMap<PeerId, HashSet<u32>>,
    running: HashSet<(u32, PeerId)>,
}

impl Plain {
    pub(crate) fn logged() -> (Box<dyn Picker>, Log) {
        let plain = Self::default();
        let log = plain.log.clone();
        (Box::new(plain), log)
    }

    fn learn(&mut self, event: &Event) {
        match event {
            Event::Joined(peer) => assert!(self.has.insert(*peer, HashSet::new()).is_none()),
            Event::Left(peer) => {
                assert!(self.has.remove(peer).is_some());
                assert!(self.running.iter().all(|(_, other)| other != peer), "a fetch outlives its peer");
            }
            Event::Has(peer, pieces) => {
                let had = self.has.get_mut(peer).unwrap();
                assert!(pieces.iter().all(|piece| had.insert(*piece)), "told twice");
            }
            Event::Coming(peer, pieces) => {
                assert!(pieces.iter().all(|piece| !self.has[peer].contains(piece)), "it is there");
            }
            Event::Done(fetched) => {
                assert!(self.running.remove(&(fetched.piece, fetched.peer)), "ended twice");
                if fetched.fault.is_none() {
                    self.done.insert(fetched.piece);
                }
            }
        }
    }
}

#[async_trait]
impl Picker for Plain {
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
            self.learn(event);
        }
        self.log.lock().unwrap().extend(events);
        let mut picks = Vec::new();
        for slot in slots {
            for _ in 0..slot.free {
                let open = |piece: &&u32| {
                    !self.done.contains(*piece)
                        && self.has[&slot.peer].contains(*piece)
                        && !self.running.contains(&(**piece, slot.peer))
                };
                let alone = |piece: &&u32| self.running.iter().all(|(other, _)| other != *piece);
                let open: Vec<_> = self.wanted.iter().filter(open).collect();
                let Some(piece) = open.iter().copied().find(alone).or(open.first().copied()) else { break };
                self.running.insert((*piece, slot.peer));
                picks.push(Fetch { peer: slot.peer, piece: *piece });
            }
        }
        Ok(picks)
    }
}

/// Fails: at the start, or at the n-th pick.
pub(crate) struct Failing {
    pub(crate) at_start: bool,
    pub(crate) picks: u32,
    pub(crate) inner: Plain,
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

/// Picks only what makes no sense.
pub(crate) struct Nonsense;

#[async_trait]
impl Picker for Nonsense {
    async fn start(&mut self, _: &Task) -> Result<(), PickError> {
        Ok(())
    }

    async fn pick(&mut self, _: Duration, _: Vec<Event>, slots: &[Slot]) -> Result<Vec<Fetch>, PickError> {
        let known = slots.first().map_or(PeerId(7), |slot| slot.peer);
        let wrong = [(PeerId(u32::MAX), 0), (PeerId(99), 1), (known, u32::MAX), (known, 1_000_000)];
        Ok(wrong.map(|(peer, piece)| Fetch { peer, piece }).to_vec())
    }
}
