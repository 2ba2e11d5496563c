//! A loaded piece picker: a component that picks the next pieces of a pull, and the peers that send them.
//!
//! Invariant: an instance serves one pull. An instance that trapped or exceeded a limit is dropped.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tightwad_sandbox::{
    CompiledComponent, Identity, LinkedComponent, Plugin, PluginEngine, PluginError, State, World,
    call_error, with_timeout,
};
use tightwad_swarm::{Event, Fault, Fetch, PeerId, PickError, Picker, Slot, Task};
use wasmtime::Store;

use crate::bindings::piece_picker::exports::tightwad::plugin::piece_picker as wit;
use crate::bindings::piece_picker::{PiecePickerPlugin, PiecePickerPluginPre};
use crate::decoding::host::nanoseconds;
use crate::settings::Settings;

/// The calls' names in errors.
const START_CALL: &str = "piece-picker.start";
const PICK_CALL: &str = "piece-picker.pick";
/// The maximum number of fetches that one call picks.
const MAX_FETCHES: usize = 4096;

/// A component that picks pieces. Each pull gets an instance of its own.
pub struct PiecePicker {
    linked: LinkedComponent<PiecePickerPluginPre<State<()>>>,
}

#[async_trait]
impl Plugin for PiecePicker {
    const WORLD: World = World { interface: "piece-picker", wasi: false };

    async fn link(
        engine: &Arc<PluginEngine>,
        name: &str,
        compiled: &CompiledComponent,
    ) -> Result<Self, PluginError> {
        let linker = engine.linker(Self::WORLD);
        let linked =
            LinkedComponent::new((engine, name, compiled), linker, PiecePickerPluginPre::new).await?;
        Ok(Self { linked })
    }

    fn is_exact(_: &CompiledComponent) -> bool {
        true
    }

    fn identity(&self) -> &Identity {
        &self.linked.identity
    }
}

impl PiecePicker {
    /// Returns the picker of one pull. The picker reads `settings`.
    #[must_use]
    pub fn for_pull(self: &Arc<Self>, settings: &Settings) -> PullPicker {
        PullPicker { plugin: self.clone(), settings: settings.clone(), instance: None }
    }

    /// Records a call and converts its error.
    fn record_call<T>(
        &self,
        call: &'static str,
        start: Instant,
        state: &State<()>,
        result: wasmtime::Result<T>,
    ) -> Result<T, PickError> {
        self.identity().counts().record(start.elapsed(), result.is_err());
        result.map_err(|error| PickError(call_error(call, &error, state).to_string()))
    }
}

/// The instance of a piece picker that serves one pull.
pub struct PullPicker {
    plugin: Arc<PiecePicker>,
    settings: Settings,
    instance: Option<(Store<State<()>>, PiecePickerPlugin)>,
}

#[async_trait]
impl Picker for PullPicker {
    async fn start(&mut self, task: &Task) -> Result<(), PickError> {
        let (mut store, start) = (self.plugin.linked.store(0, ()), Instant::now());
        let task = wit::Task {
            piece_sizes: task.pieces.clone(),
            wanted: task.wanted.clone(),
            urgent: task.urgent,
            seed: task.seed,
            settings: self.settings.to_list(),
        };
        let call = with_timeout(async {
            let picker = self.plugin.linked.instance_pre.instantiate_async(&mut store).await?;
            picker.tightwad_plugin_piece_picker().call_start(&mut store, &task).await?;
            Ok(picker)
        });
        let result = call.await;
        let picker = self.plugin.record_call(START_CALL, start, store.data(), result)?;
        self.instance = Some((store, picker));
        Ok(())
    }

    async fn pick(
        &mut self,
        now: Duration,
        events: Vec<Event>,
        slots: &[Slot],
    ) -> Result<Vec<Fetch>, PickError> {
        let (mut store, picker) =
            self.instance.take().ok_or_else(|| PickError("the picker was not started".to_owned()))?;
        store.data_mut().reset();
        store.set_epoch_deadline(1);
        let events: Vec<wit::Event> = events.into_iter().map(Into::into).collect();
        let slots: Vec<wit::Slot> =
            slots.iter().map(|slot| wit::Slot { peer: slot.peer.0, free: slot.free }).collect();
        let (now, start) = (nanoseconds(now), Instant::now());
        let exports = picker.tightwad_plugin_piece_picker();
        let result = with_timeout(exports.call_pick(&mut store, now, &events, &slots)).await;
        let fetches = self.plugin.record_call(PICK_CALL, start, store.data(), result)?;
        if fetches.len() > MAX_FETCHES {
            let message = format!("it picked {} fetches; its limit is {MAX_FETCHES}", fetches.len());
            return Err(PickError(self.plugin.linked.failed(PICK_CALL, &message).to_string()));
        }
        self.instance = Some((store, picker));
        let from_wit = |fetch: wit::Fetch| Fetch { peer: PeerId(fetch.peer), piece: fetch.piece };
        Ok(fetches.into_iter().map(from_wit).collect())
    }
}

impl From<Event> for wit::Event {
    fn from(event: Event) -> Self {
        match event {
            Event::Joined(peer) => Self::Joined(peer.0),
            Event::Left(peer) => Self::Left(peer.0),
            Event::Have(peer, pieces) => Self::Have(wit::PieceSet { peer: peer.0, pieces }),
            Event::InProgress(peer, pieces) => Self::InProgress(wit::PieceSet { peer: peer.0, pieces }),
            Event::FetchEnded(fetched) => Self::FetchEnded(wit::FetchResult {
                peer: fetched.peer.0,
                piece: fetched.piece,
                bytes: fetched.bytes,
                elapsed: nanoseconds(fetched.elapsed),
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
