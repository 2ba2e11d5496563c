//! A loaded swarm policy: it picks what a pull fetches next, and from whom.
//!
//! Invariant: an instance serves one pull; one that trapped or broke a limit is never asked again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tightwad_sandbox::{
    Compiled, Identity, Linked, Loaded, PluginEngine, PluginError, State, World, call_error, whatever_it_does,
};
use tightwad_swarm::{Event, Fault, Fetch, PeerId, PickError, Picker, Slot, Task};
use wasmtime::Store;

use crate::bindings::picking::exports::tightwad::plugin::swarm as wit;
use crate::bindings::picking::{Picking, PickingPre};

const START: &str = "swarm.start";
const PICK: &str = "swarm.pick";

/// A component that picks; compiled and linked, to be instantiated for each pull.
pub struct SwarmPlugin {
    linked: Linked<PickingPre<State<()>>>,
}

#[async_trait]
impl Loaded for SwarmPlugin {
    const WORLD: World = World { interface: "swarm", describe: "swarm.describe", wasi: false };

    async fn link(engine: &Arc<PluginEngine>, name: &str, compiled: &Compiled) -> Result<Self, PluginError> {
        let linker = engine.linker(Self::WORLD);
        let linked = Linked::new((engine, name, compiled), linker, PickingPre::new).await?;
        Ok(Self { linked })
    }

    fn is_exact(_: &Compiled) -> bool {
        true
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
        state: &State<()>,
        answer: wasmtime::Result<T>,
    ) -> Result<T, PickError> {
        self.identity().counts().note(start.elapsed(), answer.is_err());
        answer.map_err(|error| PickError(call_error(call, &error, state).to_string()))
    }
}

/// One instance of a swarm plugin.
pub struct ComponentPicker {
    plugin: Arc<SwarmPlugin>,
    settings: String,
    instance: Option<(Store<State<()>>, Picking)>,
}

#[async_trait]
impl Picker for ComponentPicker {
    async fn start(&mut self, task: &Task) -> Result<(), PickError> {
        let (mut store, start) = (self.plugin.linked.store(0, ()), Instant::now());
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
