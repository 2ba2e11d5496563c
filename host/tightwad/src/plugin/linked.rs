//! A component that was compiled and linked: what every plugin is, whatever it is for.

use std::sync::{Arc, OnceLock};

use wasmtime::Store;
use wasmtime::component::{InstancePre, Linker};

use super::contract::{self, Compiled};
use super::counts::CallCounts;
use super::health::Health;
use super::limits::{Limits, Meter, whatever_it_does};
use super::state::State;
use super::{PluginEngine, PluginError, store};

/// Who a plugin is, and how it has done.
#[derive(Debug)]
pub struct Identity {
    /// Name and version, as errors and reports show them.
    pub(super) label: String,
    /// SHA-256 of the component, in hexadecimal.
    pub(super) sha256: String,
    /// Its own: what replaces a plugin that failed gets its chance at once.
    pub(super) health: Health,
    counts: OnceLock<Arc<CallCounts>>,
}

impl Identity {
    /// What its calls took, and those of the plugins that it has replaced.
    #[must_use]
    pub fn counts(&self) -> &Arc<CallCounts> {
        self.counts.get_or_init(Arc::default)
    }

    /// Goes on counting where the plugin that it replaces has stopped; before its first call.
    pub(super) fn inherit(&self, before: &Self) {
        // It has none of its own yet.
        let _ = self.counts.set(before.counts().clone());
    }
}

/// A component to be instantiated, by the typed `I` of its world.
pub(super) struct Linked<I> {
    engine: Arc<PluginEngine>,
    limits: Limits,
    pub instance: I,
    pub identity: Identity,
}

impl<I> Linked<I> {
    /// Links a component and lets it introduce itself: `describe` instantiates it and asks for its name and its
    /// version, by the export `call`. Until then errors call it `name`.
    pub(super) async fn new(
        (engine, name, compiled): (&Arc<PluginEngine>, &str, &Compiled),
        linker: &Linker<State>,
        typed: impl FnOnce(InstancePre<State>) -> wasmtime::Result<I>,
        call: &'static str,
        describe: impl AsyncFnOnce(&I, &mut Store<State>) -> wasmtime::Result<(String, String)>,
    ) -> Result<Self, PluginError> {
        let instance = linker.instantiate_pre(&compiled.component).and_then(typed);
        let instance = instance.map_err(|error| contract::unfit(name, format!("{error:#}")))?;
        let identity = Identity {
            label: name.to_owned(),
            sha256: compiled.sha256.clone(),
            health: Health::default(),
            counts: OnceLock::new(),
        };
        let limits = compiled.kind.limits(engine.limits);
        let mut linked = Self { engine: engine.clone(), limits, instance, identity };
        let mut store = linked.store(0);
        let said = whatever_it_does(describe(&linked.instance, &mut store)).await;
        let (name, version) = said.map_err(|error| store::error(call, &error, store.data()))?;
        linked.identity.label = format!("{name}@{version}");
        Ok(linked)
    }

    /// A store for one instance. `tokens`: how many may be generated, which allows for host calls.
    pub(super) fn store(&self, tokens: u32) -> Store<State> {
        store::open(&self.engine, &self.identity.label, Meter::new(self.limits, tokens))
    }

    /// How a call that lets the component drive a request ended.
    pub(super) fn outcome(
        &self,
        call: &'static str,
        store: &Store<State>,
        answer: wasmtime::Result<Result<(), String>>,
    ) -> Result<(), PluginError> {
        match answer {
            Ok(Ok(())) => Ok(()),
            Ok(Err(message)) => {
                Err(PluginError::Failed { plugin: self.identity.label.clone(), call, message })
            }
            Err(error) => Err(store::error(call, &error, store.data())),
        }
    }
}
