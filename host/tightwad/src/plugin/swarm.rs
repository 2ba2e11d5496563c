//! A loaded swarm policy: it picks what a pull fetches next, and from whom.
//!
//! Invariant: an instance serves one pull; one that trapped or broke a limit is never asked again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tightwad_swarm::{Event, Fault, Fetch, PeerId, PickError, Picker, Slot, Task};
use wasmtime::Store;

use super::bindings::picking::exports::tightwad::plugin::swarm as wit;
use super::bindings::picking::{Picking, PickingPre};
use super::contract::{Compiled, Kind};
use super::limits::whatever_it_does;
use super::linked::{Identity, Linked};
use super::state::State;
use super::{Loaded, PluginEngine, PluginError, store};

const START: &str = "swarm.start";
const PICK: &str = "swarm.pick";
const DESCRIBE: &str = "swarm.describe";

/// A component that picks; compiled and linked, to be instantiated for each pull.
pub struct SwarmPlugin {
    linked: Linked<PickingPre<State>>,
}

#[async_trait]
impl Loaded for SwarmPlugin {
    const KIND: Kind = Kind::Swarm;

    async fn link(engine: &Arc<PluginEngine>, name: &str, compiled: &Compiled) -> Result<Self, PluginError> {
        let describe = async |plugin: &PickingPre<State>, store: &mut Store<State>| {
            let policy = plugin.instantiate_async(&mut *store).await?;
            let info = policy.tightwad_plugin_swarm().call_describe(&mut *store).await?;
            Ok((info.name, info.version))
        };
        let told = (engine, name, compiled);
        let linked = Linked::new(told, &engine.picking, PickingPre::new, DESCRIBE, describe).await?;
        Ok(Self { linked })
    }

    fn identity(&self) -> &Identity {
        &self.linked.identity
    }
}

impl SwarmPlugin {
    /// A picker for one pull; `settings` is a JSON object that the plugin reads.
    #[must_use]
    pub fn picker(self: &Arc<Self>, settings: &str) -> ComponentPicker {
        ComponentPicker { plugin: self.clone(), settings: settings.to_owned(), instance: None }
    }

    /// Notes how a call ended.
    fn done<T>(
        &self,
        call: &'static str,
        start: Instant,
        state: &State,
        answer: wasmtime::Result<T>,
    ) -> Result<T, PickError> {
        self.identity().counts().note(start.elapsed(), answer.is_err());
        answer.map_err(|error| PickError(store::error(call, &error, state).to_string()))
    }
}

/// One instance of a swarm plugin.
pub struct ComponentPicker {
    plugin: Arc<SwarmPlugin>,
    settings: String,
    instance: Option<(Store<State>, Picking)>,
}

#[async_trait]
impl Picker for ComponentPicker {
    async fn start(&mut self, task: &Task) -> Result<(), PickError> {
        let (mut store, start) = (self.plugin.linked.store(0), Instant::now());
        let task = wit::Task {
            pieces: task.pieces.clone(),
            wanted: task.wanted.clone(),
            urgent: task.urgent,
            seed: task.seed,
            settings: self.settings.clone(),
        };
        let begun = whatever_it_does(async {
            let policy = self.plugin.linked.instance.instantiate_async(&mut store).await?;
            policy.tightwad_plugin_swarm().call_start(&mut store, &task).await?;
            Ok(policy)
        });
        let begun = begun.await;
        let policy = self.plugin.done(START, start, store.data(), begun)?;
        self.instance = Some((store, policy));
        Ok(())
    }

    async fn pick(
        &mut self,
        now: Duration,
        events: Vec<Event>,
        slots: &[Slot],
    ) -> Result<Vec<Fetch>, PickError> {
        let (mut store, policy) =
            self.instance.take().ok_or_else(|| PickError("the picker was not started".to_owned()))?;
        store.data_mut().renew();
        store.set_epoch_deadline(1);
        let events: Vec<wit::Event> = events.into_iter().map(Into::into).collect();
        let slots: Vec<wit::Slot> =
            slots.iter().map(|slot| wit::Slot { peer: slot.peer.0, free: slot.free }).collect();
        let (now, start) = (nanoseconds(now), Instant::now());
        let called = policy.tightwad_plugin_swarm();
        let picked = whatever_it_does(called.call_pick(&mut store, now, &events, &slots)).await;
        let picked = self.plugin.done(PICK, start, store.data(), picked)?;
        self.instance = Some((store, policy));
        let own = |fetch: wit::Fetch| Fetch { peer: PeerId(fetch.peer), piece: fetch.piece };
        Ok(picked.into_iter().map(own).collect())
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl From<Event> for wit::Event {
    fn from(event: Event) -> Self {
        match event {
            Event::Joined(peer) => Self::Joined(peer.0),
            Event::Left(peer) => Self::Left(peer.0),
            Event::Has(peer, pieces) => Self::Has(wit::Having { peer: peer.0, pieces }),
            Event::Coming(peer, pieces) => Self::Coming(wit::Having { peer: peer.0, pieces }),
            Event::Done(fetched) => Self::Done(wit::Fetched {
                peer: fetched.peer.0,
                piece: fetched.piece,
                bytes: fetched.bytes,
                time: nanoseconds(fetched.took),
                fault: fetched.fault.map(Into::into),
            }),
        }
    }
}

impl From<Fault> for wit::Fault {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Refused => Self::Refused,
            Fault::Stalled => Self::Stalled,
            Fault::Lost => Self::Lost,
            Fault::Corrupt => Self::Corrupt,
            Fault::Cancelled => Self::Cancelled,
        }
    }
}

#[cfg(test)]
mod tests {
    use tightwad_swarm::Fetched;

    use super::*;
    use crate::plugin::{Library, Limits};

    #[tokio::test]
    async fn the_built_in_policy_picks_what_is_rare_and_only_what_a_peer_has() {
        let engine = Arc::new(PluginEngine::new(None, Limits::default()).unwrap());
        let slot = Library::new(engine, Vec::new()).load::<SwarmPlugin>("swarm", None).await.unwrap();
        assert_eq!(slot.current().label(), "swarm@0.1.0");
        let mut picker = slot.current().picker("{}");
        let task = Task { pieces: vec![1 << 20; 4], wanted: vec![0, 1, 2, 3], urgent: 0, seed: 1 };
        picker.start(&task).await.unwrap();
        let (one, other) = (PeerId(0), PeerId(1));
        let events = vec![
            Event::Joined(one),
            Event::Joined(other),
            Event::Has(one, vec![0, 1, 2, 3]),
            Event::Has(other, vec![0, 1, 2]),
        ];
        let slots = [Slot { peer: one, free: 1 }, Slot { peer: other, free: 1 }];
        let picked = picker.pick(Duration::ZERO, events, &slots).await.unwrap();
        assert!(picked.contains(&Fetch { peer: one, piece: 3 }), "nobody else has it: {picked:?}");
        let rest = picked.iter().find(|fetch| fetch.peer == other).unwrap();
        assert!(rest.piece < 3, "{picked:?}");
        let took = Duration::from_millis(5);
        let done = Fetched { peer: one, piece: 3, bytes: 1 << 20, took, fault: None };
        let slots = [Slot { peer: one, free: 1 }];
        let next = picker.pick(took, vec![Event::Done(done)], &slots).await.unwrap();
        assert!(next.iter().all(|fetch| fetch.piece < 3 && fetch.peer == one), "{next:?}");
        assert!(slot.current().identity().counts().calls() >= 3);
    }
}
